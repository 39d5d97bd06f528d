"""Owns the names of the files and folders that processes hand to each other and that a run leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# What SPLIT_FASTA leaves.
SHARDS_DIR: Final = "shards"
SPLIT_SUMMARY_FILE: Final = "split_summary.json"
MANIFEST_FILE: Final = "manifest.parquet"
REJECTED_FILE: Final = "rejected.tsv"

# What EMBED_SHARD leaves in the folder of a shard.
EMBEDDINGS_FILE: Final = "embeddings.parquet"
RESIDUES_DIR: Final = "residues"
BATCHES_FILE: Final = "batches.parquet"
GPU_METRICS_FILE: Final = "gpu_metrics.parquet"
SHARD_SUMMARY_FILE: Final = "summary.json"

# What MERGE_EMBEDDINGS adds; manifest, rejected records, residues and two tables of metrics keep their names.
EMBEDDINGS_DIR: Final = "embeddings"
METRICS_DIR: Final = "metrics"
SHARDS_FILE: Final = "shards.parquet"
RUN_SUMMARY_FILE: Final = "run_summary.json"
PROVENANCE_FILE: Final = "ro-crate-metadata.json"
DIGESTS_FILE: Final = "digests.xxh128"

# What NEIGHBOURS adds.
NEIGHBOURS_FILE: Final = "neighbours.parquet"

# What Nextflow adds.
TRACE_FILE: Final = "pipeline_info/trace.txt"


def part_name(number: int) -> str:
    """Name of one file of many that together hold the rows of a folder."""
    return f"part-{number:05d}.parquet"


def parts_of(folder: Path) -> list[Path]:
    """The files of a folder in the order of their rows; none where it is not there."""
    return sorted(folder.glob("part-*.parquet"))


def embedding_parts(results: Path) -> list[Path]:
    """The files with the vectors of finished results, in the order of their rows."""
    return parts_of(results / EMBEDDINGS_DIR)
