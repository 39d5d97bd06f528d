"""What MERGE_EMBEDDINGS is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from virnucpro.config import EMBEDDING_DTYPES, PROVENANCES, Config, option


@dataclass(frozen=True)
class MergeConfig(Config):
    """What MERGE_EMBEDDINGS does; shards may come in any order."""

    manifest: Path = option("the ledger")
    rejected: Path = option("the records that were rejected")
    split_summary: Path = option("what split_fasta.py found")
    model_json: Path = option("description written by fetch_model.py")
    shard_dirs: tuple[Path, ...] = option("what embed_shard.py left", flag="*", metavar="SHARD_DIR")
    outdir: Path = option("made whole at the end, or not at all")
    shards_in: Path | None = option("further shards: the folders shard-* in it", None, metavar="FOLDER")
    reuse: tuple[Path, ...] = option("results to take vectors from", (), metavar="RESULTS", names="reuse_names")
    embedding_dtype: str = option("type of the stored vectors", "float32", choices=EMBEDDING_DTYPES)
    provenance: str = option("what the run's record tells: files by their names", "names", choices=PROVENANCES)
    command: str | None = option("command of the run, for its record as all that follows", None)
    started: str | None = option("when it was started, in ISO 8601", None)
    nextflow_version: str | None = option("of the Nextflow that ran it", None)
    commit: str | None = option("of the pipeline, where it is known", None)
    launched: str | None = option("by whom and where, with --provenance full", None, metavar="USER@HOST:FOLDER")
    #: What the user calls each of ``reuse``, where they lie elsewhere now.
    reuse_names: tuple[str, ...] = ()
    #: When the results were merged, in ISO 8601; now unless given.
    ended: str | None = None
    row_group_rows: int = 16_384
    part_bytes: int = 1 << 30

    @property
    def folders(self) -> tuple[Path, ...]:
        """What all EMBED_SHARD tasks left."""
        from virnucpro.path_lists import shard_folders

        return (*self.shard_dirs, *shard_folders(self.shards_in))
