"""MERGE_EMBEDDINGS: the shards' vectors back into input order, joined with their metrics, and proved complete."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.errors import DataError, InputMissingError, LedgerError
from virnucpro.merge.assemble import Assembler
from virnucpro.merge.buckets import SpillBuckets
from virnucpro.merge.config import MergeConfig
from virnucpro.merge.layout import REQUEST, Layout
from virnucpro.merge.parts import PartWriter, embedding_storage, prove_conservation, rows_per_part
from virnucpro.merge.provenance import write_provenance
from virnucpro.merge.residues import merge_residues
from virnucpro.merge.shard_set import ShardFiles, check_alike, merged_metadata, open_shards, value_dtype
from virnucpro.merge.vectors import ReuseReader, ShardReader, record_type
from virnucpro.monitor.run_metrics import merge_metrics, run_figures
from virnucpro.output.atomic import prepare_new_directory, publish_directory, remove_tree, sync
from virnucpro.output.contracts import ModelDescription, RunModel, RunParameters, RunSummary, RunVersions, SplitSummary
from virnucpro.output.damage import calling, reading
from virnucpro.output.digest_list import result_digests, reused_parts, write_digests
from virnucpro.output.digests import check_file
from virnucpro.output.files import (
    EMBEDDINGS_DIR,
    GPU_METRICS_FILE,
    MANIFEST_FILE,
    METRICS_DIR,
    REJECTED_FILE,
    RESIDUES_DIR,
    RUN_SUMMARY_FILE,
)
from virnucpro.output.ledger import LedgerReader
from virnucpro.output.overlap import Behind
from virnucpro.output.schema import (
    decode_metadata,
    embedding_columns,
    file_metadata,
    required_vector_columns,
    results_schema,
    row_bytes,
    row_group_rows,
)
from virnucpro.shards import floating_point_operations, total_cost_units

#: Bytes of vectors that are worked on at once, and rows at most: narrow vectors still have ids and keys.
WINDOW_BYTES: Final = 96 << 20
WINDOW_ROWS: Final = 262_144
#: Row groups of a window that wait for the writer while the next is gathered.
GROUPS_WAITING: Final = 8
#: Bytes of vectors, and of requests for them, that wait in memory before they are spilled.
WANTED_BYTES: Final = 96 << 20
REQUEST_BYTES: Final = 32 << 20
#: What the split's summary tells of the ledger, and the ledger itself.
_COUNTED: Final = ("records", "embedded", "duplicate", "reused", "rejected", "truncated", "beyond_trained_length")


@dataclass(frozen=True)
class _Inputs:
    """Everything that is merged, opened and found to fit together."""

    summary: SplitSummary
    model: ModelDescription
    shards: Sequence[ShardFiles]
    reuse: ReuseReader
    columns: Mapping[str, int]
    metadata: dict[str, Any]


def merge(config: MergeConfig) -> RunSummary:
    """Write ``config.outdir`` from the ledger, the shards and earlier results; returns the run summary.

    The folder gets its name when all is written and proved.

    Raises:
        LedgerError: ledger, shards and vectors do not account for each other.
        DataError: a file is unreadable or does not belong to the rest.
        UsageError: ``config.outdir`` holds something.
        OSError: reading or writing failed.
    """
    with calling(dict(zip(config.reuse, config.reuse_names, strict=False))):
        inputs = _open(config)
        temporary = prepare_new_directory(config.outdir)
        try:
            summary = _merge_into(temporary, config, inputs)
            publish_directory(temporary, config.outdir)
        except BaseException:
            remove_tree(temporary)
            raise
    return summary


def _merge_into(temporary: Path, config: MergeConfig, inputs: _Inputs) -> RunSummary:
    scratch = temporary / ".scratch"
    with LedgerReader(config.manifest) as ledger:
        layout = _scan(config, inputs, ledger, scratch)
        written = _write_parts(temporary / EMBEDDINGS_DIR, config, inputs, layout, ledger, scratch)
        parts = list(written)
        remove_tree(scratch)
        prove_conservation(parts, layout.keys)
        if inputs.shards or inputs.summary.output.per_residue:
            residues = temporary / RESIDUES_DIR
            written |= merge_residues(inputs.shards, config.reuse, ledger, residues, inputs.metadata, config.part_bytes)
    metrics = temporary / METRICS_DIR
    for shard in inputs.shards:
        digest = shard.summary.digests.get(GPU_METRICS_FILE)
        check_file(shard.folder / GPU_METRICS_FILE, digest, "embed the shard again")
    rows = [shard.metrics_row() for shard in inputs.shards]
    merge_metrics([shard.folder for shard in inputs.shards], rows, metrics)
    figures = run_figures(rows, metrics, _flops(inputs, layout))
    summary = _run_summary(config, inputs, layout, figures, len(parts))
    summary.write(metrics / RUN_SUMMARY_FILE)
    for source, name in ((config.manifest, MANIFEST_FILE), (config.rejected, REJECTED_FILE)):
        shutil.copyfile(source, temporary / name)
    digests = result_digests(temporary, written, inputs.summary.digests)
    write_provenance(temporary, config, inputs.summary, inputs.model, summary, inputs.metadata, digests)
    write_digests(temporary, {temporary / name: digest for name, digest in digests.items()}, {})
    for path in filter(Path.is_file, temporary.rglob("*")):
        sync(path)
    return summary


def _open(config: MergeConfig) -> _Inputs:
    if not config.rejected.is_file():
        raise InputMissingError(f"{config.rejected}: not there; give the {REJECTED_FILE} that the split wrote")
    summary, model = SplitSummary.read(config.split_summary), ModelDescription.read(config.model_json)
    if not config.manifest.is_file():
        raise InputMissingError(f"{config.manifest}: no ledger there; give the {MANIFEST_FILE} that the split wrote")
    for path, name in ((config.manifest, MANIFEST_FILE), (config.rejected, REJECTED_FILE)):
        check_file(path, summary.digests.get(name), "split the input again")
    expected = _without_vectors(summary, model)[1]
    shards = open_shards(config.folders, summary, expected)
    for shard in shards:
        if shard.dtype != config.embedding_dtype:
            raise DataError(
                f"shard {shard.number} ({shard.folder}): vectors are {shard.dtype}, not {config.embedding_dtype}"
            )
    all_metadata, columns = [shard.metadata for shard in shards], dict(shards[0].columns) if shards else {}
    used = _used_sources(summary, len(config.reuse) if summary.reused else 0)
    parts = [reused_parts(results) if source in used else {} for source, results in enumerate(config.reuse)]
    for path in (path for files in parts for path in files):
        columns = _add_reused(path, all_metadata, expected, columns, config.embedding_dtype)
    if not all_metadata:
        columns, metadata = _without_vectors(summary, model)
        all_metadata.append(metadata)
    reuse = ReuseReader(parts, columns, config.embedding_dtype)
    return _Inputs(summary, model, shards, reuse, columns, merged_metadata(all_metadata))


def _used_sources(summary: SplitSummary, sources: int) -> list[int]:
    """Positions in ``--reuse`` that the split took vectors from: results that do not fit are left out there."""
    return [i for i in range(sources) if i >= len(summary.reuse) or summary.reuse[i].used]


def _add_reused(
    path: Path,
    all_metadata: list[Mapping[str, Any]],
    expected: Mapping[str, Any],
    columns: dict[str, int],
    dtype: str,
) -> dict[str, int]:
    with reading(path, "leave it out of --reuse and split again"):
        schema = pq.read_schema(path)
        metadata = decode_metadata(schema, path)
    check_alike(all_metadata[0] if all_metadata else expected, metadata, str(path), "the vectors it is merged with")
    all_metadata.append(metadata)
    found = required_vector_columns(schema, path)
    if columns and any(found.get(name) != dim for name, dim in columns.items()):
        raise DataError(f"{path}: other embedding columns than this run; leave it out of --reuse and split again")
    if value_dtype(schema, found) != dtype:
        raise DataError(f"{path}: vectors are {value_dtype(schema, found)}, not {dtype}; leave it out of --reuse")
    return columns or found


def _without_vectors(summary: SplitSummary, model: ModelDescription) -> tuple[dict[str, int], dict[str, Any]]:
    """Columns and metadata of a run that rejected everything."""
    output = summary.output
    names = embedding_columns(output.pooling, output.layers)
    metadata = file_metadata(
        model=model.name,
        model_revision=model.revision,
        weights_sha256=model.weights_sha256,
        precision=output.precision,
        attention="none",
        layers=output.layers,
        pooling=output.pooling,
        max_length=summary.max_length,
        long_sequences=summary.long_sequences,
        window_overlap=summary.window_overlap,
        torch="none",
        cuda=None,
        device_name="none",
    )
    return dict.fromkeys(names, model.embed_dim), metadata


def _scan(config: MergeConfig, inputs: _Inputs, ledger: LedgerReader, scratch: Path) -> Layout:
    group = _group_rows(config, inputs)
    per_row = row_bytes(inputs.columns, config.embedding_dtype)
    window = max(1, min(WINDOW_BYTES // (per_row * group), WINDOW_ROWS // group)) * group
    summary = inputs.summary
    starts = [shard.first_unique_index for shard in inputs.shards]
    end = starts[-1] + inputs.shards[-1].sequences if inputs.shards else 0
    layout = Layout(
        window,
        np.array([*starts, end], np.int64),
        inputs.reuse.first_rows,
        inputs.reuse.rows,
        summary.residue_limit,
        summary.windows,
        SpillBuckets(scratch / "requests", REQUEST, REQUEST_BYTES),
        SpillBuckets(scratch / "reuse_requests", REQUEST, REQUEST_BYTES),
    )
    layout.scan(ledger)
    for name in _COUNTED:
        if getattr(layout.totals, name) != getattr(summary, name):
            raise LedgerError(
                f"{config.manifest}: {getattr(layout.totals, name)} {name}, but {getattr(summary, name)} in "
                f"{config.split_summary}; they do not belong together"
            )
    if layout.embedded_keys.hexdigest() != summary.keys_digest:
        raise LedgerError(f"{config.manifest}: its keys are not those that {config.split_summary} summed up")
    return layout


def _write_parts(
    folder: Path, config: MergeConfig, inputs: _Inputs, layout: Layout, ledger: LedgerReader, scratch: Path
) -> dict[Path, str]:
    columns, dtype = inputs.columns, config.embedding_dtype
    wanted = SpillBuckets(scratch / "vectors", record_type(columns, dtype), WANTED_BYTES)
    inputs.reuse.distribute(sorted(layout.reuse_blocks), layout.reuse_requests, wanted)
    schema = results_schema(columns, dtype, inputs.metadata, ledger.optional)
    group = _group_rows(config, inputs)
    writer = PartWriter(
        folder, schema, rows_per_part(columns, dtype, config.part_bytes, group), embedding_storage(schema)
    )
    reader = ShardReader(inputs.shards, columns, dtype)
    names = [shard.summary.device_name for shard in inputs.shards]
    assembler = Assembler(layout, reader, wanted, schema, columns, dtype, group, names)
    try:
        with Behind[pa.Table](writer.write, GROUPS_WAITING, WINDOW_BYTES, lambda table: int(table.nbytes)) as behind:
            for table in assembler.row_groups(ledger):
                behind.put(table)
        writer.close()
    finally:
        reader.close()
        writer.abort()
    return writer.digests


def _group_rows(config: MergeConfig, inputs: _Inputs) -> int:
    return row_group_rows(inputs.columns, config.embedding_dtype, config.row_group_rows)


def _flops(inputs: _Inputs, layout: Layout) -> float:
    """Of all embedded sequences, from the ledger's lengths."""
    dim = inputs.model.embed_dim
    units = total_cost_units(layout.totals.tokens, layout.totals.squared_tokens, dim)
    return float(floating_point_operations(units, inputs.summary.output.layers, dim))


def _run_summary(
    config: MergeConfig, inputs: _Inputs, layout: Layout, figures: Mapping[str, Any], parts: int
) -> RunSummary:
    totals, metadata = layout.totals, inputs.metadata
    return RunSummary(
        model=RunModel(**{each.name: getattr(inputs.model, each.name) for each in fields(RunModel)}),
        versions=RunVersions(torch=metadata["torch"], cuda=metadata["cuda"], pyarrow=pa.__version__),
        parameters=RunParameters(
            **{each.name: metadata[each.name] for each in fields(RunParameters) if each.name in metadata},
            embedding_dtype=config.embedding_dtype,
            reuse=[entry.results for entry in inputs.summary.reuse],
        ),
        reuse=inputs.summary.reuse,
        **{name: getattr(totals, name) for name in _COUNTED},
        unknown_residues=inputs.summary.unknown_residues,
        gaps_removed=inputs.summary.gaps_removed,
        comment_lines=inputs.summary.comment_lines,
        stopped_frames=inputs.summary.stopped_frames,
        residues=totals.residues,
        tokens=totals.tokens,
        rows=totals.rows,
        keys_digest=layout.keys.hexdigest(),
        shards=len(inputs.shards),
        **figures,
        parts=parts,
    )
