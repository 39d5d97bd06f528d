"""REPORT: a finished results folder as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from virnucpro import __version__
from virnucpro.errors import InputMissingError
from virnucpro.monitor.run_verdict import run_verdict, timed_shards
from virnucpro.output.damage import REMEDY_OF_RESULTS as REMEDY
from virnucpro.output.damage import reading
from virnucpro.output.files import (
    BATCHES_FILE,
    GPU_METRICS_FILE,
    MANIFEST_FILE,
    METRICS_DIR,
    NEIGHBOURS_FILE,
    SHARDS_FILE,
    TRACE_FILE,
    embedding_parts,
)
from virnucpro.output.schema import read_metadata
from virnucpro.report.clusters import find_clusters
from virnucpro.report.colourings import colourings, nearest_by_ordinal, records_by_key
from virnucpro.report.device_series import DeviceSeries, bins_for, read_device_series
from virnucpro.report.embedding_map import EmbeddingMap, map_embeddings
from virnucpro.report.group_sections import cluster_section, outlier_section
from virnucpro.report.map_section import length_section, map_section
from virnucpro.report.multiqc import render, require_multiqc
from virnucpro.report.neighbour_section import neighbour_section
from virnucpro.report.next_steps import Findings, next_steps_section
from virnucpro.report.outliers import Outliers, find_outliers
from virnucpro.report.run_time import run_cost, run_time
from virnucpro.report.run_time_section import run_time_section
from virnucpro.report.sampling import sample_rows
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
from virnucpro.report.trace import read_tasks
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
    records = tally_records(results / MANIFEST_FILE)
    on_gpu = any(shard["device_uuid"] for shard in shards)
    series = _device_series(metrics / GPU_METRICS_FILE, shards)
    drawn = sample_rows(parts)
    found = None if drawn is None else map_embeddings(drawn, sample_rows(others))
    outliers = None if found is None else find_outliers(found.sample.vectors, found.sample.keys)
    neighbours = neighbour_section(results / NEIGHBOURS_FILE)
    findings = Findings(
        results=results.resolve().name,
        metadata=metadata,
        shards=shards,
        records=records,
        not_finite=0 if found is None else found.not_finite,
        equal=found is not None and found.equal,
        outliers=outliers,
        neighbours=neighbours is not None,
    )
    sections: list[Section | None] = [
        verdict_section(run_verdict(shards)),
        next_steps_section(findings),
        general_statistics(shards) if shards else None,
        *([] if found is None else _map_sections(results, found, outliers)),
        neighbours,
        _run_time(results, shards),
        *device_sections(series, on_gpu),
        throughput_section(shards),
        time_section(shards),
        *wait_sections(batches),
        packing_section(batches),
        *record_sections(records),
        parameter_section(metadata),
    ]
    return [section for section in sections if section is not None]


def _map_sections(results: Path, found: EmbeddingMap, outliers: Outliers | None) -> list[Section | None]:
    """What a sample of the vectors shows: where they lie, which stand together, and which alone."""
    sample = found.sample
    clusters = find_clusters(found.points, sample.keys)
    cosines = nearest_by_ordinal(results / NEIGHBOURS_FILE, sample.ordinals)
    alike = records_by_key(results / MANIFEST_FILE, sample.keys)
    shown = colourings(sample, clusters, alike, cosines, reference=found.reference is not None)
    return [
        map_section(found, shown),
        cluster_section(found, clusters),
        outlier_section(found, outliers),
        length_section(found),
    ]


def _run_time(results: Path, shards: Sequence[Mapping[str, Any]]) -> Section | None:
    clocks = [(shard["started"], shard["finished"]) for shard in timed_shards(shards)]
    tasks = read_tasks(results / TRACE_FILE, clocks)
    return run_time_section(run_time(shards, tasks), run_cost(shards))


def _device_series(path: Path, shards: Sequence[Mapping[str, Any]]) -> DeviceSeries:
    timed = timed_shards(shards)
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
