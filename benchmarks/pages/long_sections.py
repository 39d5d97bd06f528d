"""Sections on one protein as long as titin, and on what the self-check costs a task: a row for each device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.pages.result_tables import Row, conditions_line, cut, files, number, percent, read_rows, show, table


def long_protein_section(results: Path) -> Iterator[str]:
    """Nothing where none was measured."""
    measured = files(results, "long-protein-*.csv")
    if not measured:
        return
    yield "## One long protein"
    yield (
        "`python -m benchmarks.measurements.bench_long_protein CHECKPOINT FASTA` embeds one protein, as long as titin "
        "unless told otherwise, in each mode of `--long_sequences`, through Python's `Embedder`, after a short one. "
        "Memory is the device's peak, weights included, or on a CPU the process's."
    )
    heads = ["model", "mode", "residues", "precision", "seconds", "GiB", "device"]
    yield table(heads, [_protein(row) for path in measured for row in read_rows(path)], left=2)
    for path in measured:
        yield conditions_line(read_rows(path), path)


def _protein(row: Row) -> list[str]:
    peak = number(row, "peak_memory_bytes")
    gib = show(None if peak is None else peak / 2**30, ".2f")
    seconds = row["error"] or show(number(row, "seconds"), ".2f")
    return [row["model"], row["mode"], show(number(row, "residues")), row["precision"], seconds, gib, row["device"]]


def self_check_costs(results: Path) -> Iterator[str]:
    """What it took and found; nothing where it was not measured."""
    measured = files(results, "self-check-*.csv")
    if not measured:
        return
    heads = ["model", "precision", "seconds", "of ten minutes", "greatest residue L2", "least pooled cosine"]
    heads += ["first batch / bare start", "device"]
    yield table(heads, [_check(row) for path in measured for row in read_rows(path)])
    for path in measured:
        yield conditions_line(read_rows(path), path)


def _check(row: Row) -> list[str]:
    return [
        row["model"],
        row["precision"],
        show(number(row, "check_seconds"), ".1f"),
        percent(number(row, "share_of_ten_minutes")),
        show(number(row, "greatest_residue_l2"), ".1e"),
        cut(number(row, "least_pooled_cosine")),
        show(number(row, "first_batch_ratio"), ".2f"),
        row["device"],
    ]
