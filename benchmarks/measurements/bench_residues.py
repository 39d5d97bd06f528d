"""Layouts for vectors of single residues, side by side: how fast each is written, and how fast one row is read back.

    python -m benchmarks.measurements.bench_residues --gb 2

A producer hands over ready float16 matrices, batch by batch, as the engine does: what is measured is writing alone, to
the disk (fsync), each layout in a process of its own, in turns, several rounds. Reading is by key, of one sequence in
the middle, with the tools of docs/output.md, from what the last round wrote. Results go to
``benchmarks/results/residues.csv``: MB/s of wall time and of processor time, and milliseconds, medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from benchmarks.environment import RESULTS, append_csv, host_conditions

from virnucpro.output.residues import ROW_GROUP_BYTES, ResidueWriter
from virnucpro.output.schema import residues_type

#: Tokens of a batch, and of the memory that the producer takes its matrices from.
BATCH_TOKENS, POOL_TOKENS = 100_000, 120_000
PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
Matrix = np.ndarray[Any, np.dtype[np.float16]]
Batch = list[tuple[str, Matrix]]


def batches(gigabytes: float, dim: int) -> Iterator[Batch]:
    """(key, matrix) of random proteins, a batch at a time, from long to short."""
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((POOL_TOKENS, dim), np.float32).astype(np.float16)
    left, number = int(gigabytes * 1e9) // (2 * dim), 0
    while left > 0:
        batch, at = [], 0
        while left > 0 and at < BATCH_TOKENS:
            length = int(np.clip(rng.gamma(2.0, 220.0), 30, 1022))
            batch.append((f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128):032x}", pool[at : at + length]))
            left, at, number = left - length, at + length, number + 1
        yield sorted(batch, key=lambda row: -len(row[1]))


def write_bytes(path: Path, made: Iterator[Batch], dim: int) -> None:
    """Ours: Parquet, a binary value a sequence, a page each, 16 MiB a row group."""
    writer = ResidueWriter(path, {"residues": dim}, {})
    for batch in made:
        writer.write([key for key, _ in batch], [{"residues": matrix} for _, matrix in batch])
    writer.close()


def groups(made: Iterator[Batch]) -> Iterator[Batch]:
    """The same sequences in row groups as ours."""
    group: Batch = []
    for batch in made:
        for row in batch:
            group.append(row)
            if sum(matrix.nbytes for _, matrix in group) >= ROW_GROUP_BYTES:
                yield group
                group = []
    yield group


def flat(group: Batch, kind: pa.DataType) -> pa.Array:
    """Matrices as one Arrow array, of bytes or of lists."""
    matrices = [matrix for _, matrix in group]
    values = np.concatenate(matrices).reshape(-1)
    unit = matrices[0].itemsize * matrices[0].shape[1] if pa.types.is_binary(kind) else 1
    lengths = [len(matrix) * (unit if pa.types.is_binary(kind) else 1) for matrix in matrices]
    offsets = pa.py_buffer(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))
    if pa.types.is_binary(kind):
        return pa.Array.from_buffers(kind, len(group), [None, offsets, pa.py_buffer(values)])
    halves = pa.Array.from_buffers(pa.float16(), len(values), [None, pa.py_buffer(values)])
    vectors = pa.FixedSizeListArray.from_buffers(kind.value_type, sum(lengths), [None], children=[halves])
    return pa.ListArray.from_buffers(kind, len(group), [None, offsets], children=[vectors])


def tables(made: Iterator[Batch], kind: pa.DataType) -> Iterator[pa.Table]:
    """Tables of key, length and residues, a row group each."""
    for group in groups(made):
        if group:
            lengths = pa.array([len(matrix) for _, matrix in group], pa.int32())
            columns = {"sequence_key": [key for key, _ in group], "length": lengths, "residues": flat(group, kind)}
            yield pa.table(columns)


def parquet(path: Path, made: Iterator[Batch], kind: pa.DataType, **options: Any) -> None:
    """Parquet of pyarrow's own making."""
    path.mkdir()
    writer: pq.ParquetWriter | None = None
    for table in tables(made, kind):
        writer = writer or pq.ParquetWriter(path / "part-00000.parquet", table.schema, **PLAIN | options)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def ipc(path: Path, made: Iterator[Batch], kind: pa.DataType) -> None:
    """Arrow's own file format."""
    path.mkdir()
    writer: pa.RecordBatchFileWriter | None = None
    for table in tables(made, kind):
        writer = writer or pa.ipc.new_file(path / "part-00000.arrow", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def raw(path: Path, made: Iterator[Batch], _: int) -> None:
    """The bytes and nothing else: what the disk takes."""
    path.mkdir()
    with (path / "raw").open("wb", buffering=0) as file:
        for batch in made:
            for _key, matrix in batch:
                file.write(np.ascontiguousarray(matrix).data)


LAYOUTS: dict[str, Callable[[Path, Iterator[Batch], int], None]] = {
    "raw": raw,
    "parquet-bytes-page-each": write_bytes,
    "parquet-bytes": lambda path, made, _: parquet(path, made, pa.binary()),
    "parquet-bytes-zstd": lambda path, made, _: parquet(path, made, pa.binary(), compression="zstd"),
    "parquet-lists": lambda path, made, dim: parquet(path, made, residues_type(dim)),
    "arrow-bytes": lambda path, made, _: ipc(path, made, pa.binary()),
    "arrow-lists": lambda path, made, dim: ipc(path, made, residues_type(dim)),
}


def write(options: argparse.Namespace) -> dict[str, float]:
    """Write one layout; MB/s until all is on the disk, and MB per second of processor time."""
    path = options.folder / options.layout
    shutil.rmtree(path, ignore_errors=True)
    made = batches(options.gb, options.dim)
    first = next(made)
    begun, used = time.perf_counter(), time.process_time()

    def all_of_them() -> Iterator[Batch]:
        yield first
        yield from made

    LAYOUTS[options.layout](path, all_of_them(), options.dim)
    for file in path.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    megabytes = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    return {
        "mb_per_second": megabytes / (time.perf_counter() - begun),
        "mb_per_cpu_second": megabytes / (time.process_time() - used),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def read(folder: Path, layout: str) -> dict[str, float]:
    """Milliseconds for one sequence by its key, and for the same by its place in the file, with each tool."""
    import duckdb
    import pandas as pd
    import polars as pl

    file = next((folder / layout).iterdir())
    arrow, glob = file.suffix == ".arrow", str(file)
    dataset = ds.dataset(file, format="ipc" if arrow else "parquet")
    keys, lengths = dataset.to_table(columns=["sequence_key", "length"]).to_pydict().values()
    key, length = keys[len(keys) // 2], lengths[len(keys) // 2]
    both = (ds.field("sequence_key") == key) & (ds.field("length") == length)

    def by_place() -> object:
        if arrow:
            reader = pa.ipc.open_file(pa.memory_map(glob))
            return reader.get_batch(reader.num_record_batches // 2)["residues"][0]
        with pq.ParquetFile(file) as opened:
            return opened.read_row_group(opened.num_row_groups // 2)["residues"][0]

    tools: dict[str, Callable[[], object]] = {
        "place_pyarrow": by_place,
        "key_pyarrow": lambda: dataset.to_table(filter=ds.field("sequence_key") == key),
        "key_and_length_pyarrow": lambda: dataset.to_table(filter=both),
        "key_polars": lambda: (pl.scan_ipc if arrow else pl.scan_parquet)(glob).filter(sequence_key=key).collect(),
    }
    if not arrow:
        tools["key_pandas"] = lambda: pd.read_parquet(file, filters=[("sequence_key", "==", key)])
        tools["key_duckdb"] = lambda: duckdb.execute(f"FROM '{glob}' WHERE sequence_key = '{key}'").fetchall()
    return {f"ms_{name}": milliseconds(tool) for name, tool in tools.items()}


def milliseconds(tool: Callable[[], object], rounds: int = 5) -> float:
    """Median, after one that may read from the disk; NaN where the tool cannot read it."""
    try:
        tool()
    except Exception as error:  # a tool's way of saying so is its own
        print(f"cannot be read: {error}".splitlines()[0][:150], file=sys.stderr)
        return float("nan")
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        tool()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds) * 1e3


def child(options: argparse.Namespace, layout: str) -> dict[str, float]:
    """Write one layout in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--layout", layout]
    measured: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    print(layout, {name: round(value) for name, value in measured.items()}, flush=True)
    return measured


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("bench-residues"), help="emptied before and after")
    parser.add_argument("--layout", choices=LAYOUTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.layout:
        print(json.dumps(write(options)))
        return
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    try:
        rounds = [{layout: child(options, layout) for layout in LAYOUTS} for _ in range(options.rounds)]
        rows: list[dict[str, Any]] = []
        for layout in LAYOUTS:
            each = [done[layout] for done in rounds]
            figures = {name: statistics.median(one[name] for one in each) for name in each[0]}
            figures["share_of_raw"] = statistics.median(
                done[layout]["mb_per_second"] / done["raw"]["mb_per_second"] for done in rounds
            )
            rows.append({"layout": layout, **figures, **(read(options.folder, layout) if layout != "raw" else {})})
    finally:
        shutil.rmtree(options.folder)
    names = list(dict.fromkeys(name for row in rows for name in row))
    about = {"gb": options.gb, "dim": options.dim, "rounds": options.rounds, "pyarrow": pa.__version__}
    rounded = [{n: round(v, 2) if isinstance(v := row.get(n, ""), float) else v for n in names} for row in rows]
    for row in rounded:
        print(row)
    append_csv(RESULTS / "residues.csv", [{**row, **about, **host_conditions()} for row in rounded])


if __name__ == "__main__":
    main()
