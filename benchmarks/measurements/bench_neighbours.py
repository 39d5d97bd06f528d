"""Time and memory of NEIGHBOURS on made-up vectors that crowd as pooled ones do; with --peer, faiss's flat index too.

Ours is the program from its start to the finished file. The peer gets unit vectors in memory, and its seconds are those
of adding and searching; both use as many threads. Writes benchmarks/results/neighbours.csv. For a GPU:

python -m benchmarks.measurements.bench_neighbours --rows 1000000 --dim 1280 --device cuda
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.environment import RESULTS, ROOT, conditions, write_csv

from virnucpro.output.schema import results_schema
from virnucpro.output.writer import vector_array

PART_ROWS = 100_000


def vectors(rows: int, dim: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    common = np.random.default_rng(7)
    direction, spread = common.standard_normal(dim), common.standard_normal((32, dim)) * 0.2
    mixed = generator.standard_normal((rows, 32)) @ spread + 0.05 * generator.standard_normal((rows, dim))
    return (direction + mixed).astype(np.float32)


def make_results(folder: Path, rows: int, dim: int, seed: int) -> None:
    facts = {"weights_sha256": "none", "layers": [1], "pooling": ["mean"]}
    schema = results_schema({"embedding": dim}, "float32", facts)
    (folder / "embeddings").mkdir(parents=True)
    for number, start in enumerate(range(0, rows, PART_ROWS)):
        ordinals = range(start, min(start + PART_ROWS, rows))
        known = {
            "ordinal": ordinals,
            "id": [f"p{seed}_{each}" for each in ordinals],
            "length": [300] * len(ordinals),
            "truncated": [False] * len(ordinals),
            "sequence_key": [f"{seed:08x}{each:024x}" for each in ordinals],
        }
        columns = [
            pa.array(known.get(each.name, [None] * len(ordinals)), each.type)
            for each in schema
            if each.name != "embedding"
        ]
        place = schema.get_field_index("embedding")
        column = vector_array(vectors(len(ordinals), dim, seed * 1_000_003 + number), schema.field("embedding").type)
        columns.insert(place, column)
        table = pa.Table.from_arrays(columns, schema=schema)
        pq.write_table(table, folder / "embeddings" / f"part-{number:05d}.parquet", compression="none")


def read_unit(folder: Path) -> np.ndarray:
    column = pq.read_table(folder / "embeddings", columns=["embedding"])["embedding"].combine_chunks()
    found = column.flatten().to_numpy().reshape(len(column), -1)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def peer(run: Path, reference: Path, count: int) -> tuple[float, np.ndarray]:
    import faiss

    queries, references = read_unit(run), read_unit(reference)
    begun = time.monotonic()
    index = faiss.IndexFlatIP(queries.shape[1])
    index.add(references)
    _, found = index.search(queries, count)
    return time.monotonic() - begun, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=320)
    parser.add_argument("--neighbours", type=int, default=10)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS / "neighbours.csv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run, reference = Path(name) / "run", Path(name) / "reference"
        make_results(run, options.rows, options.dim, 1)
        make_results(reference, options.rows, options.dim, 2)
        command = [sys.executable, ROOT / "bin" / "neighbours.py", "--results", run, "--reference", reference]
        command += ["--neighbours", options.neighbours, "--outdir", name, "--device", options.device]
        begun = time.monotonic()
        subprocess.run(list(map(str, command)), check=True)
        seconds = time.monotonic() - begun
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        row = {"rows": options.rows, "dim": options.dim, "neighbours": options.neighbours}
        row |= {"device_type": options.device, "seconds": round(seconds, 1), "peak_host_gib": round(peak, 2)}
        print(f"{seconds:.1f} s, {peak:.2f} GiB of host memory at most")
        if options.peer:
            theirs, found = peer(run, reference, options.neighbours)
            ours = pq.read_table(Path(name) / "neighbours.parquet")["neighbour_ordinal"].to_numpy()
            equal = float((ours.reshape(found.shape) == found).mean())
            row |= {
                "faiss_seconds": round(theirs, 1),
                "ratio": round(seconds / theirs, 2),
                "equal_ids": round(equal, 6),
            }
            row |= {"faiss": importlib.metadata.version("faiss-cpu")}
            print(
                f"faiss {theirs:.1f} s: ours takes {seconds / theirs:.2f} times as long; {equal:.4%} of ids are equal"
            )
    write_csv(options.output, [{**row, "cores": os.cpu_count(), **conditions()}])


if __name__ == "__main__":
    main()
