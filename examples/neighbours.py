"""Look at a result: its first rows, and the proteins whose vectors are nearest to one protein's.

python examples/neighbours.py RESULTS [PROTEIN_ID]
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
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False)).astype(np.float32)
    ids, ordinals, lengths = (table[name].to_pylist() for name in ("id", "ordinal", "length"))
    if protein not in ids:
        sys.exit(f"no record {protein} in {results}")

    print(f"\n{len(ids)} rows, vectors of {vectors.shape[1]} numbers. The first rows:")
    for row in range(min(5, len(ids))):
        start = np.array2string(vectors[row, :4], precision=4)
        print(f"  {ordinals[row]:>4} {ids[row]:<34} {lengths[row]:>5}  {start} ...")

    centred = vectors - vectors.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    this = ids.index(protein)
    similarity = centred @ centred[this]
    print(f"\nNearest to {protein} {short(description[ordinals[this]])} (cosine of centred vectors):")
    for row in np.argsort(-similarity)[1:7]:
        print(f"  {similarity[row]:.3f} {ids[row]:<34} {short(description[ordinals[row]])}")


def short(text: str) -> str:
    name, _, rest = text.partition(" OS=")
    organism = rest.split(" GN=")[0].split(" PE=")[0]
    return f"{name}, {organism}" if organism else name


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) == 3 else PROTEIN)
