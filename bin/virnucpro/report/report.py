"""REPORT: a finished results folder as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from virnucpro import __version__
from virnucpro.errors import InputMissingError
from virnucpro.monitor.run_verdict import run_verdict
from virnucpro.output.damage import REMEDY_OF_RESULTS as REMEDY
from virnucpro.output.damage import reading
from virnucpro.output.files import (
    BATCHES_FILE,
    GPU_METRICS_FILE,
    MANIFEST_FILE,
    METRICS_DIR,
    NEIGHBOURS_FILE,
    SHARDS_FILE,
    embedding_parts,
)
from virnucpro.output.schema import read_metadata
from virnucpro.report.device_series import DeviceSeries, bins_for, read_device_series
from virnucpro.report.embedding_map import map_embeddings, sample_rows
from virnucpro.report.map_section import map_section
from virnucpro.report.multiqc import render, require_multiqc
from virnucpro.report.neighbour_section import neighbour_section
from virnucpro.report.sections import (
    Section,
    device_sections,
    general_statistics,
    packing_section,
    parameter_section,
    record_sections,
    throughput_section,
    time_section,
    verdict_section,
    wait_sections,
)
from virnucpro.report.tallies import tally_batches, tally_records
from virnucpro.report.versions import software_versions
from virnucpro.shards import shard_name

#: Shards above which the device's lines are one per device instead of one per shard.
MOST_SHARD_LINES = 60


def report(results: Path, outdir: Path, reference: Path | None = None, nextflow: str | None = None) -> Path:
    """Write the page of a results folder into ``outdir`` and return its path.

    Args:
        results: of a finished run.
        outdir: made if missing.
        reference: results to map beside.
        nextflow: version that the run had.

    Raises:
        InputMissingError: a file of the results folder is not there.
        DataError: a file is damaged.
        UsageError: MultiQC is not installed.
    """
    require_multiqc()
    sections, header = page_content(results, reference)
    return render(sections, outdir, header, software_versions(results, nextflow))


def page_content(results: Path, reference: Path | None = None) -> tuple[list[Section], dict[str, str]]:
    """The page's sections in order, and what stands at its top; needs no MultiQC.

    Raises:
        InputMissingError: a file of the results folder is not there.
    """
    metrics = results / METRICS_DIR
    for path in (results / MANIFEST_FILE, *(metrics / name for name in (SHARDS_FILE, BATCHES_FILE, GPU_METRICS_FILE))):
        if not path.is_file():
            raise InputMissingError(f"{path} does not exist; give --results the folder of a finished run")
    with reading(metrics / SHARDS_FILE, REMEDY):
        shards = pq.read_table(metrics / SHARDS_FILE).sort_by("shard").to_pylist()
    parts = embedding_parts(results)
    metadata = read_metadata(parts[0]) if parts else {}
    header = {"Model": str(metadata.get("model", "unknown")), "Pipeline": __version__}
    others = [] if reference is None else embedding_parts(reference)
    return _sections(results, shards, parts, metadata, others), header


def _sections(
    results: Path,
    shards: Sequence[Mapping[str, Any]],
    parts: Sequence[Path],
    metadata: Mapping[str, Any],
    others: Sequence[Path],
) -> list[Section]:
    metrics = results / METRICS_DIR
    batches = tally_batches(metrics / BATCHES_FILE)
    on_gpu = any(shard["device_uuid"] for shard in shards)
    series = _device_series(metrics / GPU_METRICS_FILE, shards)
    sample = sample_rows(parts)
    sections: list[Section | None] = [
        verdict_section(run_verdict(shards)),
        general_statistics(shards) if shards else None,
        map_section(map_embeddings(sample, sample_rows(others))) if sample is not None else None,
        neighbour_section(results / NEIGHBOURS_FILE),
        *device_sections(series, on_gpu),
        throughput_section(shards),
        time_section(shards),
        *wait_sections(batches),
        packing_section(batches),
        *record_sections(tally_records(results / MANIFEST_FILE)),
        parameter_section(metadata),
    ]
    return [section for section in sections if section is not None]


def _device_series(path: Path, shards: Sequence[Mapping[str, Any]]) -> DeviceSeries:
    timed = [shard for shard in shards if shard["started"] is not None and shard["finished"] is not None]
    if not timed:
        return DeviceSeries()
    began = min(shard["started"] for shard in timed)
    ended = max(shard["finished"] for shard in timed)
    bins = bins_for(ended - began, sum(shard["finished"] - shard["started"] for shard in timed))
    if len(timed) <= MOST_SHARD_LINES:
        lines = {shard["shard"]: shard_name(shard["shard"]) for shard in timed}
    else:
        lines = {shard["shard"]: f"{shard['host']} {shard['device_uuid'] or 'CPU'}" for shard in timed}
    return read_device_series(path, lines, began, ended, bins)
