"""Makes results/ folders of any size without a model: what merge leaves, with numbers that can be foretold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.monitor.schema import BATCHES_SCHEMA, GPU_METRICS_SCHEMA, SHARDS_SCHEMA
from virnucpro.output.files import (
    BATCHES_FILE,
    EMBEDDINGS_DIR,
    GPU_METRICS_FILE,
    MANIFEST_FILE,
    METRICS_DIR,
    SHARDS_FILE,
)
from virnucpro.output.ledger import LedgerWriter
from virnucpro.output.schema import results_schema

#: Unix seconds at which every synthetic run begins.
RUN_BEGAN = 1_750_000_000.0
STARTUP_SECONDS = 4.0
FAMILIES = 6


@dataclass(frozen=True)
class Run:
    """What the made-up run is like. Of 50 records, one is rejected, two are duplicates, one is reused.

    ``marks`` stand behind every name: of records, devices, hosts, the model, and behind reasons.
    """

    records: int = 500
    dim: int = 16
    shards: int = 4
    gpus: int = 2
    tokens_per_batch: int = 4096
    tokens_per_second: float = 2000.0
    sample_seconds: float = 0.1
    on_gpu: bool = True
    dtype: str = "float32"
    rows_per_group: int = 128
    seed: int = 0
    marks: str = ""


def make_results(folder: Path, run: Run | None = None) -> Path:
    """Write a results folder and return it."""
    run = run or Run()
    generator = np.random.default_rng(run.seed)
    lengths = np.clip(generator.lognormal(5.6, 0.6, run.records), 20, 4000).astype(np.int32)
    statuses = record_statuses(run.records)
    folder.mkdir(parents=True)
    (folder / METRICS_DIR).mkdir()
    shard_of = _shard_of(statuses, run.shards)
    _write_manifest(folder / MANIFEST_FILE, lengths, statuses, shard_of, run.marks)
    shards, batches = _schedule(run, lengths, statuses, shard_of)
    _write_embeddings(folder / EMBEDDINGS_DIR, run, generator, lengths, statuses, shard_of)
    pq.write_table(pa.Table.from_pylist(shards, schema=SHARDS_SCHEMA), folder / METRICS_DIR / SHARDS_FILE)
    pq.write_table(batches, folder / METRICS_DIR / BATCHES_FILE)
    _write_samples(folder / METRICS_DIR / GPU_METRICS_FILE, run, shards, generator)
    return folder


def record_statuses(records: int) -> np.ndarray:
    """Status of each record by its place alone."""
    place = np.arange(records) % 50
    return np.select(
        [place == 7, (place == 11) | (place == 12), place == 13], ["rejected", "duplicate", "reused"], "embedded"
    )


def _shard_of(statuses: np.ndarray, shards: int) -> np.ndarray:
    """Shard of each record; -1 for the rejected and the reused. A duplicate lies with the record before it."""
    computed = np.isin(statuses, ["embedded", "duplicate"])
    shard_of = np.arange(statuses.size) * shards // max(statuses.size, 1)
    return np.where(computed, shard_of, -1)


def _write_manifest(path: Path, lengths: np.ndarray, statuses: np.ndarray, shard_of: np.ndarray, marks: str) -> None:
    count = lengths.size
    unique = np.where(shard_of >= 0, np.cumsum(statuses == "embedded") - 1, -1)
    with LedgerWriter(path) as ledger:
        for start in range(0, count, 100_000):
            rows = slice(start, start + 100_000)
            ordinals = np.arange(count)[rows]
            rejected = statuses[rows] == "rejected"
            ledger.write(
                {
                    "ordinal": ordinals,
                    "id": pa.array([f"seq_{number}{marks}" for number in ordinals.tolist()]),
                    "description": pa.array([""] * ordinals.size),
                    "file": pa.array(["viral.fasta"] * ordinals.size),
                    "length": lengths[rows],
                    "truncated": lengths[rows] > 1022,
                    "beyond_trained_length": lengths[rows] > 1500,
                    "unknown_residues": np.zeros(ordinals.size, np.int32),
                    "status": pa.array(statuses[rows].tolist()),
                    "reason": pa.array(
                        [f"contains digits{marks}" if bad else None for bad in rejected.tolist()], pa.string()
                    ),
                    "sequence_key": pa.array(
                        [
                            None if bad else f"{number:032x}"
                            for bad, number in zip(rejected.tolist(), ordinals.tolist(), strict=True)
                        ]
                    ),
                    "unique_index": pa.array(unique[rows], mask=unique[rows] < 0),
                    "shard": pa.array(shard_of[rows].astype(np.int32), mask=shard_of[rows] < 0),
                }
            )


def _schedule(
    run: Run, lengths: np.ndarray, statuses: np.ndarray, shard_of: np.ndarray
) -> tuple[list[dict[str, object]], pa.Table]:
    """Shards one after another on each GPU, batches of equal size one after another in each shard."""
    rng = np.random.default_rng(run.seed + 1)
    free = [RUN_BEGAN] * run.gpus
    shards: list[dict[str, object]] = []
    tables: list[pa.Table] = []
    for shard in range(run.shards):
        members = lengths[(shard_of == shard) & (statuses == "embedded")]
        tokens = int(np.minimum(members, 1022).sum()) + 2 * members.size
        count = max(1, -(-tokens // run.tokens_per_batch))
        gpu = shard % run.gpus
        begun = free[gpu]
        seconds = run.tokens_per_batch / run.tokens_per_second
        waits = rng.exponential(0.002, count)
        waits[:: max(count // 3, 1)] = 0.08
        starts = begun + STARTUP_SECONDS + np.arange(count) * (seconds + 0.001)
        finished = float(starts[-1]) + seconds + 1.0
        free[gpu] = finished + 2.0
        batches = _batches(shard, starts, seconds, waits, members.size, tokens, run)
        tables.append(batches)
        shards.append(_shard_row(run, shard, gpu, begun, finished, members.size, tokens, waits, batches))
    return shards, pa.concat_tables(tables or [BATCHES_SCHEMA.empty_table()])


def _batches(
    shard: int, starts: np.ndarray, seconds: float, waits: np.ndarray, sequences: int, tokens: int, run: Run
) -> pa.Table:
    count = starts.size
    states = np.select([waits < 0.001, waits > 0.05], ["full", "starved"], "normal").astype(object)
    states[0] = "startup"
    per_batch = np.diff(np.linspace(0, tokens, count + 1).astype(np.int64))
    columns = {
        "shard": np.full(count, shard, np.int32),
        "batch": np.arange(count, dtype=np.int32),
        "start": starts,
        "end": starts + seconds,
        "wait_milliseconds": (waits * 1000).astype(np.float32),
        "queue_state": pa.array(states.tolist()).dictionary_encode(),
        "sequences": np.diff(np.linspace(0, sequences, count + 1).astype(np.int32)),
        "tokens": per_batch,
        "longest": np.full(count, 1024, np.int32),
        "packing_efficiency": np.minimum(1.0, per_batch / run.tokens_per_batch).astype(np.float32),
        "retries": np.zeros(count, np.int32),
        "tokens_per_second": (per_batch / seconds).astype(np.float32),
        "device_utilization": np.full(count, 96.0, np.float32),
        "energy_joules": np.full(count, 600.0 * seconds),
    }
    return pa.table(
        {field.name: pa.array(columns[field.name]).cast(field.type) for field in BATCHES_SCHEMA}, schema=BATCHES_SCHEMA
    )


def _shard_row(
    run: Run,
    shard: int,
    gpu: int,
    begun: float,
    finished: float,
    sequences: int,
    tokens: int,
    waits: np.ndarray,
    batches: pa.Table,
) -> dict[str, object]:
    compute = batches.num_rows * run.tokens_per_batch / run.tokens_per_second
    return {
        "shard": shard,
        "device_name": f"NVIDIA H100 80GB HBM3{run.marks}" if run.on_gpu else "Intel Xeon",
        "device_uuid": f"GPU-{gpu:08d}-0000{run.marks}" if run.on_gpu else None,
        "host": f"node1{run.marks}",
        "attention": "triton" if run.on_gpu else "torch",
        "started": begun,
        "finished": finished,
        "wall_seconds": finished - begun,
        "startup_seconds": STARTUP_SECONDS,
        "starved_seconds": finished - begun - STARTUP_SECONDS - compute - 1.0,
        "compute_seconds": compute,
        "write_seconds": 1.0,
        "batches": batches.num_rows,
        "sequences": sequences,
        "tokens": tokens,
        "retries": 0,
        "sequences_per_second": sequences / compute,
        "tokens_per_second": tokens / compute,
        "teraflops_per_second": tokens / compute * 1.4e-3,
        "matrix_teraflops_per_second": 778.0 if run.on_gpu else None,
        "matrix_share": tokens / compute * 1.4e-3 / 778.0 if run.on_gpu else None,
        "packing_efficiency": 0.97,
        "loader_wait_seconds": float(waits[1:].sum()),
        "writer_wait_seconds": 0.0,
        "avg_wait_time_ms": float(waits.mean() * 1000),
        "p95_wait_time_ms": float(np.percentile(waits, 95) * 1000),
        "max_wait_time_ms": float(waits.max() * 1000),
        "pct_starved": float((waits > 0.05).mean() * 100),
        "utilization_percent": 96.0,
        "mean_power_watts": 600.0 if run.on_gpu else None,
        "peak_memory_bytes": 40 << 30,
        "energy_joules": 600.0 * (finished - begun) if run.on_gpu else None,
        "startup_energy_joules": 100.0 * STARTUP_SECONDS if run.on_gpu else None,
        "batch_energy_joules": 600.0 * compute if run.on_gpu else None,
        "energy_source": "counter" if run.on_gpu else None,
        "bottleneck": "none",
    }


def _write_samples(path: Path, run: Run, shards: list[dict[str, object]], generator: np.random.Generator) -> None:
    """Readings: 5 % while starting, about 96 % after; 100 W idle and about 600 W busy."""
    with pq.ParquetWriter(path, GPU_METRICS_SCHEMA) as writer:
        for row in shards:
            times = np.arange(float(row["started"]), float(row["finished"]), run.sample_seconds)  # type: ignore[arg-type]
            busy = times - times[0] > STARTUP_SECONDS
            missing = None if run.on_gpu else np.ones(times.size, bool)
            columns = {
                "shard": np.full(times.size, row["shard"], np.int32),
                "time": times,
                "stage": pa.array(np.where(busy, "inference", "startup").tolist()),
                "device_name": pa.array([row["device_name"]] * times.size),
                "device_uuid": pa.array([row["device_uuid"]] * times.size, pa.string()),
                "utilization_percent": np.where(busy, 96 + generator.normal(0, 1, times.size), 5),
                "memory_used_bytes": np.where(busy, 40 << 30, 2 << 30),
                "power_watts": pa.array(np.where(busy, 600 + generator.normal(0, 10, times.size), 100), mask=missing),
                "sm_clock_megahertz": pa.array(np.full(times.size, 1980, np.int32), mask=missing),
                "temperature_celsius": pa.array(np.full(times.size, 60, np.int32), mask=missing),
                "throttle_reasons": pa.array([""] * times.size),
                "energy_counter_joules": pa.array(np.cumsum(np.where(busy, 60.0, 10.0)), mask=missing),
            }
            arrays = [_cast(columns[field.name], field.type) for field in GPU_METRICS_SCHEMA]
            writer.write_table(pa.Table.from_arrays(arrays, schema=GPU_METRICS_SCHEMA))


def _cast(values: object, kind: pa.DataType) -> pa.Array:
    column = values if isinstance(values, pa.Array) else pa.array(values)
    return column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)


def _write_embeddings(
    folder: Path,
    run: Run,
    generator: np.random.Generator,
    lengths: np.ndarray,
    statuses: np.ndarray,
    shard_of: np.ndarray,
) -> None:
    """Vectors around one centre per family of proteins, in parts of at most 200,000 rows."""
    folder.mkdir()
    metadata = {
        "pipeline_version": "0.1.0",
        "model": f"esm2_t33_650M_UR50D{run.marks}",
        "weights_sha256": "0123456789abcdef" * 4,
        "precision": "fp16" if run.on_gpu else "fp32",
        "attention": "triton",
        "layers": [33],
        "pooling": ["mean"],
        "max_length": 1022,
        "long_sequences": "truncate",
        "window_overlap": None,
        "torch": "2.11.0",
        "cuda": "13.0" if run.on_gpu else None,
        "device_name": f"NVIDIA H100 80GB HBM3{run.marks}" if run.on_gpu else "Intel Xeon",
    }
    schema = results_schema({"embedding": run.dim}, run.dtype, metadata)
    centres = generator.normal(0, 3, (FAMILIES, run.dim))
    kept = np.flatnonzero(statuses != "rejected")
    for part, start in enumerate(range(0, kept.size, 200_000)):
        rows = kept[start : start + 200_000]
        with pq.ParquetWriter(folder / f"part-{part:05d}.parquet", schema, compression="none") as writer:
            for first in range(0, rows.size, run.rows_per_group):
                writer.write_table(
                    _embedding_rows(
                        run, schema, generator, centres, rows[first : first + run.rows_per_group], lengths, shard_of
                    ),
                    row_group_size=run.rows_per_group,
                )


def _embedding_rows(
    run: Run,
    schema: pa.Schema,
    generator: np.random.Generator,
    centres: np.ndarray,
    rows: np.ndarray,
    lengths: np.ndarray,
    shard_of: np.ndarray,
) -> pa.Table:
    count = rows.size
    vectors = centres[rows % FAMILIES] + generator.standard_normal((count, run.dim), np.float32)
    reused = shard_of[rows] < 0
    flat = pa.array(vectors.astype(run.dtype).ravel())
    columns = {
        "ordinal": rows,
        "id": pa.array([f"seq_{number}{run.marks}" for number in rows.tolist()]),
        "length": lengths[rows],
        "truncated": lengths[rows] > 1022,
        "beyond_trained_length": lengths[rows] > 1500,
        "sequence_key": pa.array([f"{number:032x}" for number in rows.tolist()]),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, type=schema.field("embedding").type),
        "shard": pa.array(shard_of[rows].astype(np.int32), mask=reused),
        "batch": pa.array(np.zeros(count, np.int32), mask=reused),
        "device_name": pa.array([f"NVIDIA H100 80GB HBM3{run.marks}"] * count),
        "device_utilization": pa.array(np.full(count, 96.0, np.float32), mask=reused),
        "batch_tokens_per_second": pa.array(np.full(count, run.tokens_per_second, np.float32), mask=reused),
        "energy_joules": pa.array(np.full(count, 1.5), mask=reused),
    }
    arrays = [
        columns[field.name] if field.name == "embedding" else _cast(columns[field.name], field.type)  # type: ignore[list-item]
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
