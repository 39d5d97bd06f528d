"""Section of docs/performance.md on vectors of single residues: their layout on disk, and what they cost a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.pages.result_tables import Row, conditions_line, number, read_rows, show, table

LAYOUTS = {
    "raw": "nothing but the bytes",
    "parquet-bytes-page-each": "**Parquet, bytes, a page a sequence, with its digest**",
    "parquet-bytes": "Parquet, bytes, pages as they come",
    "parquet-bytes-zstd": "the same in zstd",
    "parquet-lists": "Parquet, lists of lists of halves (earlier results)",
    "arrow-bytes": "Arrow's file format, bytes",
    "arrow-lists": "Arrow's file format, lists",
}
Columns = Sequence[tuple[str, str, str]]
#: Column of the results, head of the table, format.
LAYOUT_COLUMNS: Columns = (
    ("mb_per_second", "MB/s", ",.0f"),
    ("share_of_raw", "of the bare bytes", ".2f"),
    ("mb_per_cpu_second", "MB per processor second", ",.0f"),
    ("ms_place_pyarrow", "by place, ms", ",.1f"),
    ("ms_key_and_length_pyarrow", "by key and length, ms", ",.1f"),
    ("ms_key_pyarrow", "by key: pyarrow, ms", ",.0f"),
    ("ms_key_polars", "polars, ms", ",.0f"),
    ("ms_key_duckdb", "DuckDB, ms", ",.0f"),
)
RUN_COLUMNS: Columns = (
    ("layers", "layers", ",.0f"),
    ("seconds", "s", ",.1f"),
    ("process_tokens_per_second", "tokens/s of the process", ",.0f"),
    ("share_of_pooled_process_tokens_per_second", "of pooled alone", ".2f"),
    ("tokens_per_second", "tokens/s at work", ",.0f"),
    ("share_of_pooled_tokens_per_second", "of pooled alone", ".2f"),
    ("peak_rss_gib", "peak memory, GiB", ".2f"),
    ("retries", "batches cut", ",.0f"),
    ("residues_gb", "residues, GB", ",.2f"),
    ("disk_mb_per_second", "disk, MB/s", ",.0f"),
)


def residues_section(results: Path) -> Iterator[str]:
    """Nothing where neither was measured."""
    layouts, runs = (read_rows(results / name) for name in ("residues.csv", "residues-gpu.csv"))
    if layouts or runs:
        yield "## Vectors of single residues"
    if layouts:
        first = layouts[0]
        yield (
            f"{first['gb']} GB of random float16 matrices of {first['dim']} numbers a residue, ready in memory, are "
            f"written until they are on the disk, in turns, medians of {first['rounds']} rounds; then one sequence is "
            "read, by its place in the file or by its key. The first row is what the disk took meanwhile: other work "
            "on the machine weighs on all of them. `python -m benchmarks.measurements.bench_residues`: "
            f"{first['cpu']} cores, load average {first['load_average']}, "
            + conditions_line(layouts, results / "residues.csv")
        )
        yield rows_of(layouts, ("layout",), LAYOUT_COLUMNS)
    if runs:
        yield (
            "Programs of the pipeline in turns, each a process of its own, on random proteins: "
            "`python -m benchmarks.measurements.bench_residues_gpu --checkpoint CHECKPOINT`: "
            + conditions_line(runs, results / "residues-gpu.csv")
        )
        yield rows_of(runs, ("model", "step"), RUN_COLUMNS)


def rows_of(rows: Sequence[Row], names: Sequence[str], columns: Columns) -> str:
    """A table: what each row is called, and its figures."""
    heads = [*names, *(head for _, head, _ in columns)]
    figures = ([show(number(row, key), form) for key, _, form in columns] for row in rows)
    called = ([LAYOUTS.get(row[name], row[name]) for name in names] for row in rows)
    return table(heads, [[*name, *each] for name, each in zip(called, figures, strict=True)], left=len(names))
