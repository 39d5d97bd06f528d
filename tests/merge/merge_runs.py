"""Makes what SPLIT_FASTA and EMBED_SHARD leave for the merge, from a list of sequence numbers."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from descriptions import describe

from virnucpro.merge.config import MergeConfig
from virnucpro.monitor.metrics import BatchRecord, write_shard_metrics
from virnucpro.monitor.probes import Sample
from virnucpro.output.contracts import PlannedShard, ReuseEntry, ShardRun, SplitSummary, VectorFacts
from virnucpro.output.digests import file_digests
from virnucpro.output.keys import KeyDigest
from virnucpro.output.ledger import LedgerWriter
from virnucpro.output.schema import file_metadata
from virnucpro.output.writer import ShardWriter
from virnucpro.shards import shard_name

LIMIT = 30
WATTS = 100.0


def metadata(**changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "model": "tiny",
        "model_revision": None,
        "weights_sha256": "ab" * 32,
        "precision": "fp32",
        "attention": "twin",
        "layers": [6],
        "pooling": ["mean"],
        "max_length": LIMIT,
        "long_sequences": "truncate",
        "window_overlap": None,
        "torch": "2.11",
        "cuda": None,
        "device_name": "H100",
        "greatest_residue_l2": 1e-6,
        "least_pooled_cosine": 0.9999999,
    }
    return file_metadata(**{**facts, **changes})


def key(sequence: int) -> str:
    return hashlib.md5(str(sequence).encode()).hexdigest()


def length(sequence: int) -> int:
    return 5 + sequence * 7 % 40


def tokens(sequence: int) -> int:
    return min(length(sequence), LIMIT) + 2


def beyond(sequence: int) -> bool:
    """Whether the ledger calls it beyond the trained length, which the merge takes from there."""
    return length(sequence) > LIMIT + 5


def vector(sequence: int, dim: int, column: str = "embedding") -> np.ndarray:
    seed = [sequence, len(column)]
    return np.random.default_rng(seed).standard_normal(dim, np.float32)


@dataclass
class Run:
    """A run ready to be merged. ``sequences`` has a number for each record, None for a rejected one."""

    folder: Path
    sequences: Sequence[int | None]
    shards: int = 1
    dtype: str = "float32"
    columns: dict[str, int] = field(default_factory=lambda: {"embedding": 3})
    earlier: list[tuple[Path, Sequence[int]]] = field(default_factory=list)
    power: float | None = WATTS
    residues: bool = False
    batch_rows: int = 3

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        known: dict[int, tuple[int, int]] = {}
        for source, (_, rows) in enumerate(self.earlier):
            for row, sequence in enumerate(rows):
                known.setdefault(sequence, (source, row))
        self.reused = known
        order: dict[int, int] = {}
        for sequence in self.sequences:
            if sequence is not None and sequence not in known:
                order.setdefault(sequence, len(order))
        self.unique = order
        wanted = min(self.shards, len(order))
        self.starts = [k * len(order) // wanted for k in range(wanted)] + [len(order)] if wanted else [0]
        self._write_ledger()
        self._write_rejected()
        self.write_summary()
        describe().write(self.folder / "model.json")
        for shard in range(len(self.starts) - 1):
            self.write_shard(shard)

    def config(self, **options: Any) -> MergeConfig:
        facts: dict[str, Any] = {
            "manifest": self.folder / "manifest.parquet",
            "rejected": self.folder / "rejected.tsv",
            "split_summary": self.folder / "split_summary.json",
            "model_json": self.folder / "model.json",
            "shard_dirs": tuple(self.shard_dirs()),
            "outdir": self.folder / "results",
            "reuse": tuple(path for path, _ in self.earlier),
            "embedding_dtype": self.dtype,
            "ended": "2026-11-27T10:01:00+00:00",
        }
        return MergeConfig(**{**facts, **options})

    def shard_dirs(self) -> list[Path]:
        return [self.folder / shard_name(shard) for shard in reversed(range(len(self.starts) - 1))]

    def kept(self) -> list[int]:
        return [sequence for sequence in self.sequences if sequence is not None]

    def pooling(self) -> list[str]:
        return [name.split("_")[1] for name in self.columns if "_" in name] or ["mean"]

    def shard_of(self, unique: int) -> int:
        return int(np.searchsorted(self.starts, unique, side="right")) - 1

    def statuses(self) -> list[str]:
        seen: set[int] = set()
        found = []
        for sequence in self.sequences:
            if sequence is None:
                found.append("rejected")
            elif sequence in self.reused:
                found.append("reused")
            else:
                found.append("duplicate" if sequence in seen else "embedded")
                seen.add(sequence)
        return found

    def ledger_columns(self) -> dict[str, Any]:
        rows = list(self.sequences)
        unique = [None if s is None or s in self.reused else self.unique[s] for s in rows]
        reuse = [(None, None) if s is None or s not in self.reused else self.reused[s] for s in rows]
        return {
            "ordinal": np.arange(len(rows)),
            "id": pa.array([f"p{i}" for i in range(len(rows))], pa.string()),
            "file": pa.array(["a.fasta"] * len(rows), pa.string()),
            "length": pa.array([0 if s is None else length(s) for s in rows], pa.int32()),
            "truncated": pa.array([s is not None and length(s) > LIMIT for s in rows], pa.bool_()),
            "beyond_trained_length": pa.array([None if s is None else beyond(s) for s in rows], pa.bool_()),
            "status": pa.array(self.statuses(), pa.string()),
            "reason": pa.array(["no residues" if s is None else None for s in rows], pa.string()),
            "sequence_key": pa.array([None if s is None else key(s) for s in rows], pa.string()),
            "unique_index": pa.array(unique, pa.int64()),
            "shard": pa.array([None if u is None else self.shard_of(u) for u in unique], pa.int32()),
            "reuse_source": pa.array([source for source, _ in reuse], pa.int32()),
            "reuse_row": pa.array([row for _, row in reuse], pa.int64()),
        }

    def _write_ledger(self, **changes: Any) -> None:
        with LedgerWriter(self.folder / "manifest.parquet") as ledger:
            ledger.write({**self.ledger_columns(), **changes})

    rewrite_ledger = _write_ledger

    def _write_rejected(self) -> None:
        rows = [f"a.fasta\t{2 * i + 1}\t{i}\tp{i}\tno residues\n" for i, s in enumerate(self.sequences) if s is None]
        (self.folder / "rejected.tsv").write_text("".join(("file\tline\tordinal\tid\treason\n", *rows)))

    def write_summary(self) -> None:
        digest = KeyDigest()
        digest.add(pa.array([key(s) for s in self.unique], pa.string()))
        statuses = self.statuses()
        counts = {name: statuses.count(name) for name in ("embedded", "duplicate", "reused", "rejected")}
        distinct = list(self.unique)
        plan = []
        for shard, (first, end) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            computed = sum(tokens(s) for s in distinct[first:end])
            plan.append(
                PlannedShard(
                    shard=shard,
                    file=f"{shard_name(shard)}.fasta",
                    first_unique_index=first,
                    sequences=end - first,
                    residues=computed - 2 * (end - first),
                    tokens=computed,
                    cost=computed,
                )
            )
        summary = SplitSummary(
            records=len(self.sequences),
            **counts,
            residues=sum(map(length, self.kept())),
            truncated=sum(1 for s in self.kept() if length(s) > LIMIT),
            beyond_trained_length=sum(map(beyond, self.kept())),
            unknown_residues=3,
            gaps_removed=5,
            comment_lines=7,
            stopped_frames=0,
            share_saved=0.0,
            max_length=LIMIT,
            long_sequences="truncate",
            window_overlap=None,
            keys_digest=digest.hexdigest(),
            digests=file_digests([self.folder / "manifest.parquet", self.folder / "rejected.tsv"]),
            output=VectorFacts(
                layers=[6],
                pooling=self.pooling(),
                precision="fp32",
                embedding_dtype=self.dtype,
                per_residue=self.residues,
            ),
            shards=plan,
            reuse=[ReuseEntry(results=str(path), used=True, reason=None) for path, _ in self.earlier],
            card=None,
            card_teraflops=100.0,
        )
        summary.write(self.folder / "split_summary.json")

    def write_shard(self, shard: int, *, rows: int | None = None, facts: dict[str, Any] | None = None) -> Path:
        """Write one shard, longest sequences first; with ``rows`` only that many of it."""
        first, end = self.starts[shard], self.starts[shard + 1]
        count = end - first if rows is None else rows
        distinct = list(self.unique)[first : first + count]
        order = sorted(range(count), key=lambda i: -length(distinct[i]))
        outdir = self.folder / shard_name(shard)
        records = []
        with ShardWriter(
            outdir,
            self.columns,
            self.dtype,
            first,
            count,
            facts or metadata(pooling=self.pooling()),
            residue_columns={"residues": 3} if self.residues else None,
        ) as writer:
            for batch, start in enumerate(range(0, count, self.batch_rows)):
                chosen = order[start : start + self.batch_rows]
                vectors = {
                    name: np.stack([vector(distinct[i], dim, name) for i in chosen])
                    for name, dim in self.columns.items()
                }
                keys = np.frombuffer(bytes.fromhex("".join(key(distinct[i]) for i in chosen)), np.uint8)
                writer.write(np.array(chosen) + first, vectors, batch, keys.reshape(-1, 16))
                if self.residues:
                    writer.write_residues(
                        np.array(chosen) + first, [{"residues": residues(distinct[i])} for i in chosen]
                    )
                sizes = [tokens(distinct[i]) for i in chosen]
                begin = 1000.0 * shard + 1 + batch
                records.append(BatchRecord(batch, begin, begin + 0.9, 0.1, "full", len(chosen), sum(sizes), max(sizes)))
            samples = [
                Sample(1000.0 * shard + i / 10, "", 80.0 + shard, 1 << 30, self.power)
                for i in range(10 * len(records) + 21)
            ]
            known = ShardRun(shard=shard, device_name=f"H100-{shard}", process_start=1000.0 * shard)
            writer.finish(lambda folder: write_shard_metrics(folder, records, samples, known, writer.digests))
        return outdir

    def rewrite_shard(self, shard: int, **options: Any) -> None:
        """Write a shard again, other than it was."""
        shutil.rmtree(self.folder / shard_name(shard))
        self.write_shard(shard, **options)


def residues(sequence: int) -> np.ndarray:
    return np.stack([vector(sequence + 1000 * i, 3) for i in range(tokens(sequence) - 2)])


def read_results(results: Path) -> pa.Table:
    parts = sorted((results / "embeddings").glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts])


def vectors(table: pa.Table, name: str = "embedding") -> np.ndarray:
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(table.num_rows, column.type.list_size)
