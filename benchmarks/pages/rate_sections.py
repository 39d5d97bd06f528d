"""Sections of docs/performance.md on rates: goals, engines, a whole process, a whole run of the pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from benchmarks.pages.engines_plot import PEERS, engine_label
from benchmarks.pages.result_tables import (
    ABSENT,
    SIZES,
    Goal,
    Row,
    conditions_line,
    constant,
    distinct,
    files,
    number,
    percent,
    read_rows,
    show,
    table,
    times,
)

#: Model size, engine, column, goal.
SHARES = (
    ("650M", "ours-bf16", "share_of_matmul", Goal("650M, bf16: share of the matrix product's rate", 0.70, ".3f")),
    ("650M", "ours-fp16", "share_of_matmul", Goal("650M, fp16: share of the matrix product's rate", 0.66, ".3f")),
    ("3B", "ours-bf16", "share_of_matmul", Goal("3B, bf16: share of the matrix product's rate", 0.76, ".3f")),
    ("8M", "ours-fp16", "tokens_per_second", Goal("8M, fp16: tokens/s", 8e6, ",.0f")),
)
#: Model size, engine, the engine it is compared with, goal for the ratio.
RATIOS = (
    ("650M", "ours-fp16", "hugging-face-bf16", Goal("650M, fp16: times Hugging Face bf16", 2.5, ".1f")),
    ("650M", "ours-fp16", "fair-esm-fp16", Goal("650M, fp16: times fair-esm fp16 autocast", 7, ".1f")),
    ("650M", "ours-fp16", "fair-esm-fp32", Goal("650M, fp16: times fair-esm fp32", 16, ".1f")),
    ("650M", "ours-fp8", "ours-bf16", Goal("650M, fp8: times our own bf16", 1.35, ".2f")),
    ("3B", "ours-fp8", "ours-bf16", Goal("3B, fp8: times our own bf16", 1.35, ".2f")),
)
#: Precision, goal for the plain form of the layers at 650M.
PLAIN = (
    ("bf16", Goal("650M, bf16, plain form: share of the matrix product's rate", 0.70, ".3f")),
    ("fp16", Goal("650M, fp16, plain form: share of the matrix product's rate", 0.68, ".3f")),
)
PROCESS = (
    ("share_of_in_memory", Goal("share of the engine's rate from memory", 0.95, ".3f")),
    ("starved_share", Goal("share of batches waited for over 50 ms", 0.01, ".3f", most=True)),
    ("startup_seconds", Goal("seconds from the process's start to its first batch", 12, ".1f", most=True)),
)


def engine_rows(results: Path, size: str) -> dict[str, Row]:
    """Rows of one size by engine."""
    return {row["engine"]: row for row in read_rows(results / f"engines-{size}.csv")}


def rate_of(rows: dict[str, Row], engine: str) -> float | None:
    return number(rows[engine], "tokens_per_second") if engine in rows else None


def plain_share(results: Path, precision: str) -> float | None:
    """Share that the plain form at 650M has of the mean of the product's rates before its runs and right after them."""
    wanted = {"model": "650M", "precision": precision, "path": "plain"}
    row = next((row for row in read_rows(results / "paths.csv") if wanted.items() <= row.items()), {})
    figures = [number(row, name) for name in ("tflops", "matmul_tflops", "matmul_tflops_after")]
    rate, *limits = [figure for figure in figures if figure] or [0.0]
    return rate / fmean(limits) if len(limits) == 2 else None


def goals_section(results: Path) -> Iterator[str]:
    measured = {size: engine_rows(results, size) for size in SIZES}
    lines = []
    for size, engine, column, goal in SHARES:
        row = measured[size].get(engine)
        lines.append(goal.row(None if row is None else number(row, column)))
    for size, engine, peer, goal in RATIOS:
        ours, theirs = rate_of(measured[size], engine), rate_of(measured[size], peer)
        lines.append(goal.row(ours / theirs if ours and theirs else None))
    lines += [goal.row(plain_share(results, precision)) for precision, goal in PLAIN]
    for path in files(results, "process-*.csv") or [results / "process-650M.csv"]:
        size = path.stem.removeprefix("process-")
        rows = read_rows(path) or [{}]
        for column, goal in PROCESS:
            name, *rest = goal.row(number(rows[-1], column))
            lines.append([f"whole process, {size}: {name}", *rest])
    yield "## Goals"
    yield table(["figure", "goal", "measured", ""], lines)


def engines_section(results: Path, plot: str) -> Iterator[str]:
    bench = "benchmarks/peers/bench_engines.py"
    yield "## Engines"
    yield (
        "`python -m benchmarks.peers.bench_engines FASTA --size SIZE` runs each engine in turn in one process on the "
        "same proteins, "
        "cut to the same length; tokens count cls and eos and no padding. fair-esm does what its `extract.py` does, in "
        f"padded batches of {constant(bench, 'FAIR_ESM_BUDGET'):,} tokens; Hugging Face is `EsmModel` with SDPA over "
        f"length-sorted padded batches of {constant(bench, 'HUGGING_FACE_BUDGET'):,}; ours takes packed batches from "
        "pinned memory. All mean-pool. Slow engines run on an even sample of the proteins (column proteins). Weights "
        "are random: the rate does not depend on them. Rates are those of the median run. TFLOP/s counts "
        "24Ld²n + 4Ldn² operations for a protein of n tokens in L layers of width d. The share is of the rate of a "
        "bf16 product of two 8192x8192 matrices, measured before and after in the same process."
    )
    yield f"![Tokens per second of each engine by model size, with the share of the matrix product's rate]({plot})"
    for size in SIZES:
        path = results / f"engines-{size}.csv"
        rows = engine_rows(results, size)
        yield f"### {size}"
        if not rows:
            yield "Not measured."
            continue
        yield engines_table(rows)
        missing = [engine_label(peer) for peer in PEERS if peer not in rows]
        every = list(rows.values())
        matmul = " and ".join(f"{float(rate):.0f}" for rate in distinct(every, "matmul_tflops"))
        budgets = " and ".join(f"{int(budget):,}" for budget in distinct(every, "budget"))
        yield (
            f"Matrix product: {matmul} TFLOP/s; packed batches of {budgets} tokens; "
            f"{max(int(row['sequences']) for row in every):,} proteins, "
            f"{max(int(row['tokens']) for row in every):,} tokens. "
            + conditions_line(every, path)
            + (f" Not measured at this size: {', '.join(missing)}." if missing else "")
        )


def engines_table(rows: dict[str, Row]) -> str:
    peers = [rate_of(rows, peer) for peer in PEERS]
    lines = []
    for engine, row in rows.items():
        rate = number(row, "tokens_per_second")
        lines.append(
            [
                engine_label(engine),
                show(rate),
                show(number(row, "tflops"), ".1f"),
                percent(number(row, "share_of_matmul")),
                *(times(rate, peer) for peer in peers),
                show(number(row, "peak_gib"), ".2f"),
                show(number(row, "sequences")),
            ]
        )
    heads = ["engine", "tokens/s", "TFLOP/s", "share", *(f"x {engine_label(peer)}" for peer in PEERS)]
    return table([*heads, "peak GiB", "proteins"], lines)


def process_section(results: Path) -> Iterator[str]:
    yield "## A whole process and its start"
    yield (
        "`python -m benchmarks.measurements.bench_process FASTA CHECKPOINT --size SIZE` runs EMBED_SHARD as the "
        "pipeline does, from FASTA "
        "to Parquet with the weights on local disk, and then the same batches from memory. The rate is that between "
        "the ends of the first and the last batch; start-up is from the process's start to its first batch, with the "
        "kernels compiled by a run before."
    )
    paths = files(results, "process-*.csv")
    if not paths:
        yield "Not measured."
    for path in paths:
        rows = read_rows(path)
        lines = [
            [
                f"{row['model']} {row['precision']}",
                show(number(row, "steady_tokens_per_second")),
                show(number(row, "in_memory_tokens_per_second")),
                percent(number(row, "share_of_in_memory")),
                percent(number(row, "starved_share")),
                show(number(row, "startup_seconds"), ".1f"),
                show(number(row, "batches")),
                show(number(row, "tokens")),
            ]
            for row in rows
        ]
        heads = ["model", "tokens/s", "from memory", "share", "starved", "start-up s", "batches", "tokens"]
        yield table(heads, lines)
        yield conditions_line(rows, path)


def pipeline_section(results: Path) -> Iterator[str]:
    yield "## A whole run of the pipeline"
    folders = [path.parent for path in sorted(results.glob("pipeline-*/run_summary.json"))]
    if not folders:
        yield "Not measured."
    for folder in folders:
        summary = json.loads((folder / "run_summary.json").read_text(encoding="utf-8"))
        devices = ", ".join(str(device["name"]) for device in summary.get("devices", []))
        yield (
            f"`nextflow run` with `{summary['model']['name']}` in {summary['parameters']['precision']} on {devices}: "
            f"{summary['records']:,} records, {summary['tokens']:,} tokens computed in {summary['shards']} shards; "
            f"torch {summary['versions']['torch']}, CUDA {summary['versions']['cuda']} "
            f"(`benchmarks/results/{folder.name}/`). The run's own verdict:"
        )
        yield "\n".join(f"- {line}" for line in summary.get("verdict", []))
        if (folder / "trace.txt").is_file():
            lines = (folder / "trace.txt").read_text(encoding="utf-8").splitlines()
            heads = lines[0].split("\t")
            tasks = [dict(zip(heads, line.split("\t"), strict=False)) for line in lines[1:] if line.strip()]
            columns = ("name", "status", "duration", "realtime", "peak_rss")
            yield table(list(columns), [[task.get(column, ABSENT) for column in columns] for task in tasks], left=2)
