"""Merge against a bare pyarrow copy of the same shards, in one run: MB of vectors written per second, and memory.

    python -m benchmarks.measurements.bench_merge --rows 5000000 --dim 320 --shards 50 --duplicates 0.5

Each step runs in a process of its own, whose peak resident memory is the kernel's count. The copy runs before and
after the merge, since a shared machine changes its speed; the ratio is against the faster of the two.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.descriptions import random_model
from benchmarks.environment import RESULTS, append_csv

from virnucpro.machine import processor_name, usable_cores
from virnucpro.merge.config import MergeConfig
from virnucpro.merge.merge import merge
from virnucpro.monitor.metrics import BatchRecord, write_shard_metrics
from virnucpro.monitor.probes import Sample
from virnucpro.output.contracts import PlannedShard, ShardRun, SplitSummary, VectorFacts
from virnucpro.output.digests import ContentDigest, file_digests
from virnucpro.output.keys import KeyDigest
from virnucpro.output.ledger import LedgerWriter
from virnucpro.output.schema import METADATA_KEY, file_metadata, row_group_rows, shard_schema
from virnucpro.output.writer import VECTOR_STORAGE, key_array, vector_array, write_parquet
from virnucpro.shards import shard_name

LEDGER_CHUNK = 100_000
BATCH_ROWS = 500
TOKENS = 302


def main() -> None:
    options = _options()
    if options.step:
        _step(options)
        return
    folder = options.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _generate(folder, options)
        measured = [_run(options, step) for step in ("copy", "merge", "copy")]
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    _report(options, measured)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--dim", type=int, default=320)
    parser.add_argument("--shards", type=int, default=50)
    parser.add_argument("--duplicates", type=float, default=0.5, help="share of the rows that repeat earlier ones")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--folder", type=Path, default=Path("bench-merge"), help="scratch space, emptied")
    parser.add_argument("--keep", action="store_true", help="leave the scratch space")
    parser.add_argument("--step", choices=("copy", "merge"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _starts(options: argparse.Namespace) -> tuple[int, list[int]]:
    unique = options.rows - int(options.rows * options.duplicates)
    return unique, [k * unique // options.shards for k in range(options.shards + 1)]


def _generate(folder: Path, options: argparse.Namespace) -> None:
    unique, starts = _starts(options)
    _write_ledger(folder, options.rows, unique, starts)
    for shard in range(options.shards):
        _write_shard(folder / f"shard-{shard:05d}", shard, starts[shard], starts[shard + 1], options)


def key_of(unique: int) -> int:
    """A number of 128 bits for each sequence."""
    return unique * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)


def _write_ledger(folder: Path, rows: int, unique: int, starts: list[int]) -> None:
    """Every repetition comes after its first occurrence, which may be anywhere before it."""
    random = np.random.default_rng(0)
    new = np.zeros(rows, np.bool_)
    new[0] = True
    new[1 + random.permutation(rows - 1)[: unique - 1]] = True
    before: npt.NDArray[np.int64] = np.cumsum(new) - new
    index = np.where(new, before, (random.random(rows) * before).astype(np.int64))
    shard = np.searchsorted(starts, index, side="right") - 1
    every, embedded = KeyDigest(), KeyDigest()
    with LedgerWriter(folder / "manifest.parquet") as ledger:
        for start in range(0, rows, LEDGER_CHUNK):
            part = slice(start, min(start + LEDGER_CHUNK, rows))
            keys = pa.array([f"{key_of(i):032x}" for i in index[part].tolist()])
            every.add(keys)
            embedded.add(keys.filter(pa.array(new[part])))
            count = part.stop - part.start
            ledger.write(
                {
                    "ordinal": np.arange(part.start, part.stop),
                    "id": [f"sp|P{i:08d}" for i in range(part.start, part.stop)],
                    "description": ["a protein of a virus"] * count,
                    "file": ["input.fasta"] * count,
                    "length": np.full(count, TOKENS - 2, np.int32),
                    "truncated": np.zeros(count, np.bool_),
                    "beyond_trained_length": np.zeros(count, np.bool_),
                    "status": np.where(new[part], "embedded", "duplicate"),
                    "sequence_key": keys,
                    "unique_index": index[part],
                    "shard": shard[part].astype(np.int32),
                }
            )
    _write_descriptions(folder, rows, starts, embedded.hexdigest())


def _write_descriptions(folder: Path, rows: int, starts: list[int], keys_digest: str) -> None:
    (folder / "rejected.tsv").touch()
    unique = starts[-1]
    plan = [
        PlannedShard(
            shard=shard,
            file=f"{shard_name(shard)}.fasta",
            first_unique_index=first,
            sequences=end - first,
            residues=(end - first) * (TOKENS - 2),
            tokens=(end - first) * TOKENS,
            cost=0,
        )
        for shard, (first, end) in enumerate(itertools.pairwise(starts))
    ]
    summary = SplitSummary(
        records=rows,
        residues=rows * (TOKENS - 2),
        embedded=unique,
        duplicate=rows - unique,
        reused=0,
        rejected=0,
        truncated=0,
        beyond_trained_length=0,
        unknown_residues=0,
        gaps_removed=0,
        comment_lines=0,
        share_saved=1 - unique / rows,
        max_length=1022,
        long_sequences="truncate",
        window_overlap=None,
        keys_digest=keys_digest,
        digests=file_digests([folder / "manifest.parquet", folder / "rejected.tsv"]),
        output=VectorFacts(
            layers=[6], pooling=["mean"], precision="fp16", embedding_dtype="float16", per_residue=False
        ),
        shards=plan,
        reuse=[],
        card=None,
        card_teraflops=100.0,
    )
    summary.write(folder / "split_summary.json")
    random_model(layers=6, embed_dim=320, heads=20).write(folder / "model.json")


def _write_shard(folder: Path, shard: int, first: int, end: int, options: argparse.Namespace) -> None:
    folder.mkdir()
    columns = {"embedding": options.dim}
    schema = shard_schema(columns, options.dtype, _metadata())
    random, digest = np.random.default_rng(shard), ContentDigest(schema.metadata[METADATA_KEY])

    def groups() -> Iterator[pa.Table]:
        size = row_group_rows(columns, options.dtype)
        for start in range(first, end, size):
            index = np.arange(start, min(start + size, end))
            values = random.standard_normal((len(index), options.dim), np.float32).astype(options.dtype)
            batch = ((index - first) // BATCH_ROWS).astype(np.int32)
            octets = b"".join(key_of(i).to_bytes(16, "big") for i in index.tolist())
            keys = np.frombuffer(octets, np.uint8).reshape(-1, 16)
            digest.add(index, keys, values, batch)
            vectors = vector_array(values, schema.field("embedding").type)
            arrays = [pa.array(index), key_array(keys), vectors, pa.array(batch)]
            yield pa.Table.from_arrays(arrays, schema=schema)

    write_parquet(folder / "embeddings.parquet", schema, groups())
    batches = [
        BatchRecord(b, b, b + 1, 0.1, "full", min(BATCH_ROWS, end - at), min(BATCH_ROWS, end - at) * TOKENS, TOKENS)
        for b, at in enumerate(range(first, end, BATCH_ROWS))
    ]
    samples = [Sample(float(second), "", 95.0, 1 << 34, 600.0) for second in range(len(batches) + 1)]
    run = ShardRun(shard=shard, device_name="none", process_start=0.0)
    write_shard_metrics(folder, batches, samples, run, {"embeddings.parquet": digest.hexdigest()})


def _metadata() -> dict[str, object]:
    return file_metadata(
        model="random", model_revision=None, weights_sha256="0" * 64, precision="fp16", attention="none", layers=[6],
        pooling=["mean"], max_length=1022, long_sequences="truncate", window_overlap=None,
        torch="none", cuda=None, device_name="none",
    )  # fmt: skip


def _run(options: argparse.Namespace, step: str) -> dict[str, float]:
    arguments = [a for a in sys.argv[1:] if a != "--keep"]
    command = [sys.executable, "-m", __spec__.name, *arguments, "--step", step]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    measured: dict[str, float] = json.loads(done.stdout)
    speed, cpu = measured["mb_per_second"], measured["mb_per_cpu_second"]
    print(f"{step:6} {speed:6.0f} MB/s {cpu:6.0f} MB/CPU-s {measured['seconds']:7.1f} s {measured['rss_gib']:.2f} GiB")
    return measured


def _step(options: argparse.Namespace) -> None:
    folder = options.folder.resolve()
    unique, _ = _starts(options)
    shards = tuple(folder / f"shard-{shard:05d}" for shard in range(options.shards))
    begun = time.perf_counter()
    if options.step == "copy":
        rows = unique
        _copy(shards, folder / "copy")
    else:
        rows = options.rows
        shutil.rmtree(folder / "results", ignore_errors=True)
        merge(
            MergeConfig(
                manifest=folder / "manifest.parquet",
                rejected=folder / "rejected.tsv",
                split_summary=folder / "split_summary.json",
                model_json=folder / "model.json",
                shard_dirs=shards,
                outdir=folder / "results",
                embedding_dtype=options.dtype,
            )
        )
    seconds = time.perf_counter() - begun
    size = rows * options.dim * np.dtype(options.dtype).itemsize
    used = resource.getrusage(resource.RUSAGE_SELF)
    measured = {
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "mb_per_second": size / seconds / 1e6,
        "mb_per_cpu_second": size / (used.ru_utime + used.ru_stime) / 1e6,
        "rss_gib": used.ru_maxrss / 2**20,
    }
    print(json.dumps(measured))


def _copy(shards: tuple[Path, ...], folder: Path) -> None:
    """What any tool must at least do: read each row group, write it again, and have it on the disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for shard in shards:
        with pq.ParquetFile(shard / "embeddings.parquet") as file:
            target = folder / f"{shard.name}.parquet"
            with pq.ParquetWriter(target, file.schema_arrow, **VECTOR_STORAGE) as writer:
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group))
            with target.open("rb") as written:
                os.fsync(written.fileno())


def _report(options: argparse.Namespace, measured: list[dict[str, float]]) -> None:
    first, merged, second = measured
    copy = max(first["mb_per_second"], second["mb_per_second"])
    ratio = merged["mb_per_second"] / copy
    cpu_ratio = merged["mb_per_cpu_second"] / max(first["mb_per_cpu_second"], second["mb_per_cpu_second"])
    print(f"per CPU second {cpu_ratio:.0%} of the copy; load average {os.getloadavg()[0]:.1f}")
    print(f"merge writes {merged['mb_per_second']:.0f} MB/s of vectors, {ratio:.0%} of a bare copy's {copy:.0f} MB/s")
    row = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": processor_name(),
        "cores": usable_cores(),
        "pyarrow": pa.__version__,
        "rows": options.rows,
        "dim": options.dim,
        "dtype": options.dtype,
        "shards": options.shards,
        "duplicates": options.duplicates,
        "merge_mb_per_second": round(merged["mb_per_second"]),
        "merge_seconds": round(merged["seconds"], 1),
        "copy_mb_per_second": round(copy),
        "ratio": round(ratio, 2),
        "cpu_ratio": round(cpu_ratio, 2),
        "load_average": round(os.getloadavg()[0], 1),
        "merge_rss_gib": round(merged["rss_gib"], 2),
    }
    append_csv(RESULTS / "merge.csv", [row])


if __name__ == "__main__":
    main()
