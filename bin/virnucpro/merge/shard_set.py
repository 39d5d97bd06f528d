"""The shards of a run as they come back from the GPUs: every one there once, and all of them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.errors import DataError, InputMissingError, LedgerError
from virnucpro.monitor.schema import SHARDS_SCHEMA
from virnucpro.output.contracts import PlannedShard, ShardSummary, SplitSummary
from virnucpro.output.damage import reading
from virnucpro.output.files import BATCHES_FILE, EMBEDDINGS_FILE, RESIDUES_DIR, SHARD_SUMMARY_FILE
from virnucpro.output.schema import (
    DESCRIPTIVE_KEYS,
    decode_metadata,
    first_difference,
    shard_schema,
    vector_columns,
    worst_figures,
)
from virnucpro.shards import shard_number

_NAMED_AT_MOST: Final = 10


@dataclass(frozen=True)
class ShardFiles:
    """One shard's folder with what its footer and summary say."""

    number: int
    folder: Path
    first_unique_index: int
    sequences: int
    metadata: Mapping[str, Any]
    columns: Mapping[str, int]
    dtype: str
    summary: ShardSummary

    @property
    def embeddings(self) -> Path:
        """The shard's vectors."""
        return self.folder / EMBEDDINGS_FILE

    @property
    def batches(self) -> Path:
        """The shard's batches."""
        return self.folder / BATCHES_FILE

    @property
    def residues(self) -> dict[Path, str]:
        """The files of the shard's per-residue vectors with their digests, if it has them."""
        digests = self.summary.digests
        return {self.folder / name: digests[name] for name in sorted(digests) if name.startswith(f"{RESIDUES_DIR}/")}

    def metrics_row(self) -> dict[str, Any]:
        """What shards.parquet says of the shard."""
        known = self.summary.to_dict() | {"attention": self.metadata.get("attention")}
        return {name: known[name] for name in SHARDS_SCHEMA.names}


def open_shards(folders: Sequence[Path], split: SplitSummary, expected: Mapping[str, Any]) -> list[ShardFiles]:
    """Match the folders to the split's plan.

    Args:
        folders: one per shard, named ``shard-00000`` and so on, in any order.
        split: what the split planned.
        expected: metadata that the split asked for, under ``IDENTITY_KEYS``.

    Raises:
        LedgerError: a shard is missing, doubled, unknown, short or long.
        DataError: a shard is unreadable, or was embedded differently from the others.
    """
    found: dict[int, Path] = {}
    for folder in folders:
        number = shard_number(folder.name)
        if number is None:
            raise DataError(f"{folder}: not a shard's folder, which is named like shard-00000")
        if number in found:
            raise LedgerError(f"shard {number} is there twice: {found[number]} and {folder}; give it once")
        # An error names the folder to remove, and no link to it.
        found[number] = folder.resolve()
    planned = {entry.shard: entry for entry in split.shards}
    _expect_none(sorted(set(planned) - set(found)), "missing; embed it and merge again")
    _expect_none(sorted(set(found) - set(planned)), "not of this split; merge the shards of one split only")
    shards = [_open_shard(number, found[number], planned[number]) for number in sorted(planned)]
    for shard in shards:
        # The device decides on it: what the split was told is what a GPU would compute in.
        precision = shards[0].metadata.get("precision")
        where = f"shard {shard.number} ({shard.folder})"
        check_alike({**expected, "precision": precision}, shard.metadata, where, "what the split asked for")
        if (shard.columns, shard.dtype) != (shards[0].columns, shards[0].dtype):
            raise DataError(
                f"shard {shard.number} ({shard.folder}): other embedding columns than shard 0; embed it again"
            )
        if bool(shard.residues) != bool(shards[0].residues):
            raise DataError(f"shard {shard.number} ({shard.folder}): residues are in some shards only; embed it again")
        if split.output.per_residue and not shard.residues:
            raise LedgerError(f"{where}: no residues, for which the split was asked; embed it again with --per-residue")
    return shards


def _expect_none(numbers: Sequence[int], what: str) -> None:
    if numbers:
        named = ", ".join(map(str, numbers[:_NAMED_AT_MOST]))
        more = f" and {len(numbers) - _NAMED_AT_MOST} more" if len(numbers) > _NAMED_AT_MOST else ""
        raise LedgerError(f"shard {named}{more}: {what}")


def _open_shard(number: int, folder: Path, planned: PlannedShard) -> ShardFiles:
    path = folder / EMBEDDINGS_FILE
    where = f"shard {number} ({folder})"
    try:
        with reading(where, "embed it again"):
            with pq.ParquetFile(path) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
            metadata = decode_metadata(schema, path)
        summary = ShardSummary.read(folder / SHARD_SUMMARY_FILE)
    except InputMissingError as error:
        raise LedgerError(f"shard {number}: {error}") from error
    if rows != planned.sequences:
        raise LedgerError(
            f"shard {number} ({folder}): {rows} vectors for {planned.sequences} sequences "
            f"from unique_index {planned.first_unique_index} on; embed it again"
        )
    columns = vector_columns(schema)
    if not columns:
        raise DataError(f"shard {number} ({folder}): no embedding column in {path.name}; embed it again")
    dtype = value_dtype(schema, columns)
    if not schema.equals(shard_schema(columns, dtype, {})):
        raise DataError(f"{where}: other columns in {path.name} than a shard has; embed it again")
    return ShardFiles(
        number,
        folder,
        planned.first_unique_index,
        rows,
        metadata,
        columns,
        dtype,
        summary,
    )


def value_dtype(schema: pa.Schema, columns: Mapping[str, int]) -> str:
    """ "float32" or "float16", whichever the embedding columns hold."""
    kind = schema.field(next(iter(columns))).type.value_type
    return "float16" if pa.types.is_float16(kind) else "float32"


def check_alike(expected: Mapping[str, Any], found: Mapping[str, Any], where: str, reference: str) -> None:
    """Refuse vectors that cannot stand in one table: other weights, precision, layers and so on.

    Raises:
        DataError: naming the first difference.
    """
    key = first_difference(expected, found)
    if key is not None:
        raise DataError(
            f"{where}: {key} is {found.get(key)}, but {expected.get(key)} in {reference}; "
            "embed all of them with the same model and options"
        )


def merged_metadata(all_metadata: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Metadata of merged files: the common identity, every value of what may differ, the worst of the self-checks."""
    merged = {**all_metadata[0], **worst_figures(all_metadata)}
    for key in DESCRIPTIVE_KEYS:
        values = sorted({str(metadata[key]) for metadata in all_metadata if metadata.get(key) is not None})
        merged[key] = ", ".join(values) if values else None
    return merged
