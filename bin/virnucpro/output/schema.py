"""Owns the Parquet columns and file metadata of every result; docs/output.md is tested against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NotRequired, TypedDict, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro import __version__
from virnucpro.errors import DataError
from virnucpro.output.damage import REMEDY_OF_RESULTS, reading
from virnucpro.output.keys import KEY_BYTES

#: The one key of the Parquet file metadata that is ours; its value is a JSON object.
METADATA_KEY: Final = b"virnucpro"

#: Rows per Parquet row group: 16,384 x 1,280 float16 are 40 MiB, enough for a disk and little for memory.
ROW_GROUP_ROWS: Final = 16_384

#: Bytes of vectors per row group at most, which wide models reach before ``ROW_GROUP_ROWS``.
ROW_GROUP_BYTES: Final = 64 << 20

#: What becomes of a record, and the codes that stand for it: positions in this tuple.
STATUSES: Final = ("embedded", "duplicate", "reused", "rejected")
EMBEDDED, DUPLICATE, REUSED, REJECTED = range(len(STATUSES))

LEDGER_SCHEMA: Final = pa.schema(
    [
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("description", pa.string()),
        pa.field("file", pa.dictionary(pa.int32(), pa.string())),
        pa.field("length", pa.int32()),
        pa.field("truncated", pa.bool_()),
        pa.field("beyond_trained_length", pa.bool_()),
        pa.field("unknown_residues", pa.int32()),
        pa.field("gaps_removed", pa.int32()),
        pa.field("status", pa.dictionary(pa.int32(), pa.string())),
        pa.field("reason", pa.string()),
        pa.field("sequence_key", pa.string()),
        pa.field("unique_index", pa.int64()),
        pa.field("shard", pa.int32()),
        pa.field("reuse_source", pa.int32()),
        pa.field("reuse_row", pa.int64()),
    ]
)

#: Of a run with a sample sheet, in the ledger and in results.
SAMPLE: Final = pa.field("sample", pa.dictionary(pa.int32(), pa.string()), nullable=False)

#: Where a protein lies, of a run with --translate, in the ledger and in results: 1-based, both ends in it, as in GFF.
CONTIG_FIELDS: Final = (
    pa.field("contig", pa.string()),
    pa.field("strand", pa.string()),
    pa.field("frame", pa.int32()),
    pa.field("start", pa.int64()),
    pa.field("end", pa.int64()),
)
#: What only some runs have.
OPTIONAL_FIELDS: Final = (SAMPLE, *CONTIG_FIELDS)

#: Rows by ``ordinal`` and ``rank``, 1 being the nearest.
NEIGHBOURS_SCHEMA: Final = pa.schema(
    [
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("neighbour_ordinal", pa.int64(), nullable=False),
        pa.field("neighbour_id", pa.string(), nullable=False),
        pa.field("cosine", pa.float32(), nullable=False),
    ]
)

#: Metadata that must be equal for vectors to be comparable: over the shards of a run, and with reused results.
IDENTITY_KEYS: Final = (
    "weights_sha256",
    "precision",
    "layers",
    "pooling",
    "max_length",
    "long_sequences",
    "window_overlap",
)
#: Further metadata, which may differ from shard to shard (a mixed cluster); merged files list every value.
DESCRIPTIVE_KEYS: Final = (
    "pipeline_version",
    "model",
    "model_revision",
    "attention",
    "torch",
    "cuda",
    "device_name",
)
#: Figures of the self-check -> how those of several shards become one: the worst.
WORST_OF: Final[Mapping[str, Callable[[Sequence[float]], float]]] = MappingProxyType(
    {"greatest_residue_l2": max, "least_pooled_cosine": min}
)

#: What each row of results takes from its record in the ledger, before the vectors. For another column, a line here.
LEDGER_FACTS: Final = ("ordinal", "id", "length", "truncated", "beyond_trained_length", "sequence_key")
#: Those that ledgers and results of earlier versions lack.
LATER_FACTS: Final = ("beyond_trained_length",)
#: What each row of results says of the batch that computed its vector, and the column of batches.parquet that it is.
BATCH_FACTS: Final = {"device_utilization": "device_utilization", "batch_tokens_per_second": "tokens_per_second"}

#: The key of our metadata that tells how residues are stored, and numpy's name for their numbers.
RESIDUES_KEY: Final = "residues"
RESIDUE_TYPE: Final = np.dtype("<f2")

_ARROW_FLOATS: Final = {"float32": pa.float32(), "float16": pa.float16()}


def embedding_columns(pooling: Sequence[str], layers: Sequence[int]) -> tuple[str, ...]:
    """Column names for the poolings and absolute layer numbers asked for, poolings outermost.

    One pooling of one layer is plain ``embedding``.
    """
    if len(pooling) == 1 and len(layers) == 1:
        return ("embedding",)
    return tuple(f"embedding_{name}_layer{layer}" for name in pooling for layer in layers)


def row_bytes(columns: Mapping[str, int], dtype: str) -> int:
    """Bytes of one row's vectors."""
    return sum(columns.values()) * int(_ARROW_FLOATS[dtype].bit_width) // 8


def row_group_rows(columns: Mapping[str, int], dtype: str, at_most: int = ROW_GROUP_ROWS) -> int:
    """Rows per row group: ``at_most``, halved until the vectors take no more than ``ROW_GROUP_BYTES``."""
    rows = at_most
    while rows > 1 and rows * row_bytes(columns, dtype) > ROW_GROUP_BYTES:
        rows //= 2
    return rows


def residue_columns(layers: Sequence[int]) -> tuple[str, ...]:
    """Column names of per-residue vectors: plain ``residues`` for one layer."""
    if len(layers) == 1:
        return ("residues",)
    return tuple(f"residues_layer{layer}" for layer in layers)


def embedding_type(dtype: str, dim: int) -> pa.DataType:
    """Arrow type of an embedding column: ``dim`` float32 or float16 numbers per row."""
    return pa.list_(pa.field("element", _ARROW_FLOATS[dtype], nullable=False), dim)


def residues_type(dim: int) -> pa.DataType:
    """Arrow type of per-residue vectors in memory: a list of one float16 vector of ``dim`` numbers per residue."""
    return pa.list_(pa.field("element", embedding_type("float16", dim), nullable=False))


def _embedding_fields(columns: Mapping[str, int], dtype: str) -> list[pa.Field]:
    return [pa.field(name, embedding_type(dtype, dim), nullable=False) for name, dim in columns.items()]


def shard_schema(columns: Mapping[str, int], dtype: str, metadata: Mapping[str, object]) -> pa.Schema:
    """Schema of a shard's embeddings.parquet; ``columns`` maps column names to dimensions."""
    fields = [
        pa.field("unique_index", pa.int64(), nullable=False),
        pa.field("sequence_key", pa.binary(KEY_BYTES), nullable=False),
        *_embedding_fields(columns, dtype),
    ]
    fields.append(pa.field("batch", pa.int32(), nullable=False))
    return pa.schema(fields, metadata=encode_metadata(metadata))


def residues_schema(columns: Mapping[str, int], metadata: Mapping[str, object]) -> pa.Schema:
    """Schema of residues/part-*.parquet, of shards and of results: one row per distinct sequence.

    Args:
        columns: names to the dimension, which is one for all.
        metadata: of the vectors; the form of the residues is added to it.
    """
    (dim,) = set(columns.values())
    fields = [
        LEDGER_SCHEMA.field("sequence_key").with_nullable(False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("dim", pa.int32(), nullable=False),
        *(pa.field(name, pa.binary(), nullable=False) for name in columns),
    ]
    form = {"type": "float16", "byte_order": "little", "dim": dim}
    return pa.schema(fields, metadata=encode_metadata({**metadata, RESIDUES_KEY: form}))


def results_schema(
    columns: Mapping[str, int], dtype: str, metadata: Mapping[str, object], optional: Sequence[pa.Field] = ()
) -> pa.Schema:
    """Schema of results/embeddings/part-*.parquet: one row per record that was not rejected, in input order.

    Args:
        columns: names of vectors to dimensions.
        dtype: of the vectors.
        metadata: of the vectors.
        optional: those of ``OPTIONAL_FIELDS`` that the ledger has.
    """
    fields = [
        *(LEDGER_SCHEMA.field(name).with_nullable(False) for name in LEDGER_FACTS),
        *optional,
        *_embedding_fields(columns, dtype),
        pa.field("shard", pa.int32()),
        pa.field("batch", pa.int32()),
        pa.field("device_name", pa.dictionary(pa.int32(), pa.string())),
        *(pa.field(name, pa.float32()) for name in BATCH_FACTS),
        pa.field("energy_joules", pa.float64()),
    ]
    return pa.schema(fields, metadata=encode_metadata(metadata))


class Origin(TypedDict):
    """Where vectors come from; ``layers`` are absolute numbers. The last two are of the self-check."""

    model: str
    model_revision: str | None
    weights_sha256: str
    precision: str
    attention: str
    layers: list[int]
    pooling: list[str]
    max_length: int
    long_sequences: str
    window_overlap: int | None
    torch: str
    cuda: str | None
    device_name: str
    greatest_residue_l2: NotRequired[float | None]
    least_pooled_cosine: NotRequired[float | None]


def file_metadata(**origin: Unpack[Origin]) -> dict[str, object]:
    """What every file of vectors says about its origin."""
    checked = {name: origin.get(name) for name in WORST_OF}
    return {"pipeline_version": __version__, **origin, **checked}


def first_difference(expected: Mapping[str, object], found: Mapping[str, object]) -> str | None:
    """The first of ``IDENTITY_KEYS`` in which metadata differ; the limit is none where sequences are left whole."""
    whole = expected.get("long_sequences") == found.get("long_sequences") == "full"
    keys = (key for key in IDENTITY_KEYS if not (whole and key == "max_length"))
    return next((key for key in keys if expected.get(key) != found.get(key)), None)


def worst_figures(found: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The worst of each figure of the self-check; None where there is one that was not checked."""
    every = {name: [each.get(name) for each in found] for name in WORST_OF}
    known = {name: [value for value in values if value is not None] for name, values in every.items()}
    whole = {name: bool(found) and len(values) == len(found) for name, values in known.items()}
    return {name: worst(known[name]) if whole[name] else None for name, worst in WORST_OF.items()}


def encode_metadata(metadata: Mapping[str, object]) -> dict[bytes, bytes]:
    """File metadata as Parquet wants it: one key of ours, JSON with sorted keys."""
    return {METADATA_KEY: json.dumps(dict(metadata), sort_keys=True).encode()}


def decode_metadata(schema: pa.Schema, where: Path | str) -> dict[str, Any]:
    """Our metadata of an opened file.

    Raises:
        DataError: the file was not written by this pipeline.
    """
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise DataError(f"{where}: no '{METADATA_KEY.decode()}' metadata; this file was not written by this pipeline")
    try:
        decoded = json.loads(raw)
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        raise DataError(f"{where}: metadata is not a JSON object; embed it again")
    return decoded


def read_metadata(path: Path) -> dict[str, Any]:
    """Our metadata of a Parquet file, reading its footer only."""
    with reading(path, REMEDY_OF_RESULTS):
        return decode_metadata(pq.read_schema(path), path)


def vector_columns(schema: pa.Schema) -> dict[str, int]:
    """Embedding columns of a file, name to dimension, in file order."""
    return {
        field.name: field.type.list_size
        for field in schema
        if field.name.startswith("embedding") and pa.types.is_fixed_size_list(field.type)
    }


def required_vector_columns(schema: pa.Schema, where: Path | str) -> dict[str, int]:
    """``vector_columns`` of finished results; DataError where there is none."""
    columns = vector_columns(schema)
    if not columns:
        raise DataError(f"{where}: no embedding column; {REMEDY_OF_RESULTS}")
    return columns
