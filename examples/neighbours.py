"""Look at a result: its first rows, and the proteins whose vectors are nearest to one protein's.

python examples/neighbours.py RESULTS [PROTEIN_ID], of a run with --neighbours
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq

PROTEIN = "sp|O88514|DEFB4_RAT"


def main(results: Path, protein: str) -> None:
    table = ds.dataset(results / "embeddings", format="parquet").to_table(["ordinal", "id", "length", "embedding"])
    described = pq.read_table(results / "manifest.parquet", columns=["ordinal", "description"])
    description = dict(zip(*(described[name].to_pylist() for name in described.column_names), strict=True))
    pairs = pq.read_table(results / "neighbours.parquet", filters=[("id", "=", protein)]).to_pylist()
    if not pairs:
        sys.exit(f"no record {protein} with neighbours in {results}")

    numbers = table.schema.field("embedding").type.list_size
    print(f"\n{table.num_rows} rows, vectors of {numbers} numbers. The first rows:")
    for row in table.slice(0, 5).to_pylist():
        start = np.array2string(np.array(row["embedding"][:4]), precision=4)
        print(f"  {row['ordinal']:>4} {row['id']:<34} {row['length']:>5}  {start} ...")

    print(f"\nNearest to {protein} {short(description[pairs[0]['ordinal']])} (cosine):")
    for pair in pairs:
        print(f"  {pair['cosine']:.3f} {pair['neighbour_id']:<34} {short(description[pair['neighbour_ordinal']])}")


def short(text: str) -> str:
    name, _, rest = text.partition(" OS=")
    organism = rest.split(" GN=")[0].split(" PE=")[0]
    return f"{name}, {organism}" if organism else name


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) == 3 else PROTEIN)
