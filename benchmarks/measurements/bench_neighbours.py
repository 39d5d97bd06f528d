"""Time and memory of NEIGHBOURS on made-up vectors that crowd as pooled ones do; with --peer, faiss's flat index too.

Ours is the program from its start to the finished file. The peer gets unit vectors in memory, and its seconds are those
of adding and searching; both use as many threads, and with --repeats take turns. Seconds of the processors tell more
where other work is on the machine. Writes benchmarks/results/neighbours-DEVICE.csv. For a GPU, among the run's own
vectors, which is half as many to make up:

python -m benchmarks.measurements.bench_neighbours --rows 1000000 --dim 1280 --device cuda --itself
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import os
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

PART_ROWS = 50_000


def vectors(rows: int, dim: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    common = np.random.default_rng(7)
    direction, spread = common.standard_normal(dim), common.standard_normal((32, dim)) * 0.2
    found = generator.standard_normal((rows, dim), np.float32)
    found *= 0.05
    found += generator.standard_normal((rows, 32), np.float32) @ spread.astype(np.float32)
    found += direction.astype(np.float32)
    return found


def make_results(folder: Path, rows: int, dim: int, seed: int) -> None:
    (folder / "embeddings").mkdir(parents=True)
    parts = [
        (folder, number, start, min(start + PART_ROWS, rows), dim, seed)
        for number, start in enumerate(range(0, rows, PART_ROWS))
    ]
    with multiprocessing.get_context("spawn").Pool(min(len(parts), max(1, (os.cpu_count() or 1) // 2))) as pool:
        pool.starmap(make_part, parts, chunksize=1)


def make_part(folder: Path, number: int, start: int, end: int, dim: int, seed: int) -> None:
    facts = {"weights_sha256": "none", "layers": [1], "pooling": ["mean"]}
    schema = results_schema({"embedding": dim}, "float32", facts)
    ordinals = range(start, end)
    known = {
        "ordinal": ordinals,
        "id": [f"p{seed}_{each}" for each in ordinals],
        "length": [300] * len(ordinals),
        "truncated": [False] * len(ordinals),
        "beyond_trained_length": [False] * len(ordinals),
        "sequence_key": [f"{seed:08x}{each:024x}" for each in ordinals],
    }
    columns = [
        pa.array(known.get(each.name, [None] * len(ordinals)), each.type) for each in schema if each.name != "embedding"
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


def peer(run: Path, reference: Path, count: int) -> tuple[float, float, np.ndarray]:
    """Seconds, seconds of processors, and rows found."""
    import faiss

    queries, references = read_unit(run), read_unit(reference)
    begun, used = time.monotonic(), time.process_time()
    index = faiss.IndexFlatIP(queries.shape[1])
    index.add(references)
    _, found = index.search(queries, count)
    return time.monotonic() - begun, time.process_time() - used, found


def ours(run: Path, reference: Path, options: argparse.Namespace) -> tuple[float, float, float]:
    """Seconds, seconds of processors and the peak of resident GiB of the program."""
    command = [sys.executable, ROOT / "bin" / "neighbours.py", "--results", run, "--neighbours", options.neighbours]
    command += [] if options.itself else ["--reference", reference]
    begun = time.monotonic()
    program = subprocess.Popen(list(map(str, [*command, "--outdir", run.parent, "--device", options.device])))
    _, status, usage = os.wait4(program.pid, 0)
    if status:
        sys.exit(f"neighbours.py ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=320)
    parser.add_argument("--neighbours", type=int, default=10)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--itself", action="store_true", help="among the run's own vectors")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the vectors are made up, or lie from a run before")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        run, reference = folder / "run", folder / ("run" if options.itself else "reference")
        for seed, results in enumerate(dict.fromkeys((run, reference)), start=1):
            if not results.exists():
                make_results(results, options.rows, options.dim, seed)
        for _ in range(options.repeats):
            rows.append(measure(run, reference, options))
    write_csv(options.output or RESULTS / f"neighbours-{options.device}.csv", rows)


def measure(run: Path, reference: Path, options: argparse.Namespace) -> dict[str, object]:
    """A row of results."""
    seconds, used, peak = ours(run, reference, options)
    row: dict[str, object] = {"rows": options.rows, "dim": options.dim, "neighbours": options.neighbours}
    row |= {
        "device_type": options.device,
        "seconds": round(seconds, 1),
        "processor_seconds": round(used, 1),
        "peak_host_gib": round(peak, 2),
    }
    print(f"{seconds:.1f} s, {peak:.2f} GiB of host memory at most", flush=True)
    if options.peer:
        theirs, theirs_used, found = peer(run, reference, options.neighbours)
        table = pq.read_table(run.parent / "neighbours.parquet", columns=["neighbour_ordinal"])
        equal = float((table["neighbour_ordinal"].to_numpy().reshape(found.shape) == found).mean())
        row |= {"faiss_seconds": round(theirs, 1), "faiss_processor_seconds": round(theirs_used, 1)}
        row |= {"ratio": round(seconds / theirs, 2), "processor_ratio": round(used / theirs_used, 2)}
        row |= {"equal_ids": round(equal, 6)}
        row |= {"faiss": importlib.metadata.version("faiss-cpu")}
        ratios = f"{seconds / theirs:.2f} times as long and {used / theirs_used:.2f} times the processors' time"
        print(f"faiss {theirs:.1f} s: ours takes {ratios}; {equal:.4%} of ids are equal", flush=True)
    return {**row, "cores": os.cpu_count(), **conditions()}


if __name__ == "__main__":
    main()
