"""docs/performance.md from the result files of the benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from benchmarks import ROOT
from benchmarks.environment import RESULTS
from benchmarks.pages.attention_sections import attention_section, paths_section
from benchmarks.pages.gpus_section import gpus_section
from benchmarks.pages.kernel_sections import kernels_section, limits_section
from benchmarks.pages.long_sections import long_protein_section
from benchmarks.pages.rate_sections import (
    engine_rows,
    engines_section,
    goals_section,
    pipeline_section,
    process_section,
)
from benchmarks.pages.residues_section import residues_section
from benchmarks.pages.result_tables import (
    ABSENT,
    SIZES,
    conditions_line,
    cut,
    data_line,
    files,
    number,
    read_rows,
    show,
    table,
)
from benchmarks.pages.run_section import run_section


def recording_section(results: Path) -> Iterator[str]:
    yield "## What recording the GPU costs, and whether it is true"
    sampling, monitor = files(results, "sampling-*.csv"), read_rows(results / "monitor.csv")
    if not sampling and not monitor:
        commands = [f"`python -m benchmarks.measurements.{name} FASTA`" for name in ("bench_sampling", "bench_monitor")]
        yield f"Not measured ({', '.join(commands)})."
    for path in sampling:
        rows = read_rows(path)
        for row in rows:
            yield (
                f"{row['model']} {row['precision']}: with {show(number(row, 'readings_per_second'), '.1f')} readings a "
                f"second the rate is {show(number(row, 'ratio_mean'), '.4f')} of that without "
                f"(± {show(number(row, 'ratio_standard_error'), '.4f')}; equal windows beside each other "
                f"{show(number(row, 'control_mean'), '.4f')} ± {show(number(row, 'control_standard_error'), '.4f')}). "
                "`python -m benchmarks.measurements.bench_sampling FASTA`: " + conditions_line(rows, path)
            )
    if monitor:
        heads = [
            "model",
            "utilisation recorded, %",
            "by the profiler, %",
            "energy recorded, J",
            "by the counter, J",
            "difference, %",
        ]
        keys = (
            "utilization_recorded",
            "utilization_profiler",
            "energy_recorded_joules",
            "energy_counter_joules",
            "energy_recorded_difference_percent",
        )
        lines = [[row["model"], *(show(number(row, key), ",.1f") for key in keys)] for row in monitor]
        yield table(heads, lines)
        told = conditions_line(monitor, results / "monitor.csv")
        yield f"`python -m benchmarks.measurements.bench_monitor FASTA`: {told}"


def cpu_section(results: Path) -> Iterator[str]:
    yield "## On a CPU"
    yield (
        "`make bench-cpu` embeds the demo's proteins by fair-esm's extract script and by EMBED_SHARD, each a process "
        "of its own with the same weights and threads, and compares the vectors. Other work on the machine "
        "lengthens the time of either; processor seconds depend on it less."
    )
    paths = files(results, "cpu*.csv")
    if not paths:
        yield "Not measured."
    for path in paths:
        rows = read_rows(path)
        lines = [
            [
                row["engine"],
                show(number(row, "seconds_min"), ".1f"),
                show(number(row, "residues_per_second")),
                show(number(row, "speedup"), ".2f"),
                show(number(row, "processor_seconds_min"), ".1f"),
                cut(number(row, "worst_pooled_cosine"), 9),
            ]
            for row in rows
        ]
        heads = ["engine", "s", "residues/s", "times fair-esm", "processor seconds", "worst pooled cosine"]
        yield table(heads, lines)
        first = rows[0]
        yield (
            f"`{first['model']}`, {int(first['sequences']):,} proteins, {first['threads']} threads, fastest of "
            f"{first['repeats']}. " + conditions_line(rows, path)
        )


def maker(name: str) -> str:
    """The script that writes a result file, by its name."""
    scripts = [
        path
        for path in RESULTS.parent.glob("*/bench_*.py")
        if name.replace("-", "_").startswith(path.stem.removeprefix("bench_"))
    ]
    return f"`{max(scripts, key=lambda path: len(path.stem)).relative_to(ROOT)}`" if scripts else ABSENT


def other_section(results: Path) -> Iterator[str]:
    shown = (
        "engines-",
        "kernels-",
        "process-",
        "parity-",
        "eight-bits-",
        "sampling-",
        "monitor",
        "cpu",
        "gpus",
        "attention-",
        "paths",
        "residues",
        "run-",
        "long-protein-",
        "self-check-",
    )
    names = [path.stem for path in sorted(results.glob("*.csv")) if not path.stem.startswith(shown)]
    if names:
        yield "## Other results"
        lines = [[f"`benchmarks/results/{name}.csv`", maker(name)] for name in names]
        yield table(["file", "written by"], lines, left=2)


def performance_page(results: Path, plot: str) -> str:
    """The whole page; ``plot`` is the picture's path as seen from it."""
    engines = [row for size in SIZES for row in engine_rows(results, size).values()]
    data = data_line(engines)
    blocks = [
        "# Performance",
        "Written by `make docs` from the files in `benchmarks/results/`; do not edit. `make bench-gpu FASTA=proteins` "
        "on a machine with an NVIDIA GPU measures engines, parity, kernels and process anew and then writes this page. "
        f"Each table names its machine, versions, commit and file; {ABSENT} is what its file does not hold."
        + (f" Data: {data}." if data else ""),
        *goals_section(results),
        *run_section(results, str(PurePosixPath(plot).parent)),
        *engines_section(results, plot),
        *paths_section(results),
        *kernels_section(results),
        *attention_section(results),
        *process_section(results),
        *pipeline_section(results),
        *residues_section(results),
        *long_protein_section(results),
        *gpus_section(results, str(PurePosixPath(plot).parent)),
        *limits_section(results),
        *recording_section(results),
        *cpu_section(results),
        *other_section(results),
    ]
    return "\n\n".join(blocks) + "\n"
