"""Sections of docs/performance.md on single kernels and on what limits the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.pages.rate_sections import engine_rows
from benchmarks.pages.result_tables import (
    ABSENT,
    SIZES,
    Row,
    conditions_line,
    files,
    number,
    percent,
    read_rows,
    show,
    table,
    times,
)

#: The launches that make up a layer.
LAYER = (
    "norm_linear_rotary",
    "varlen_attention_1024",
    "linear_residual_out",
    "norm_linear_gelu",
    "linear_residual_down",
)


def kernels_section(results: Path) -> Iterator[str]:
    yield "## Kernels"
    yield (
        "`python -m benchmarks.measurements.bench_kernels --model SIZE --dtype bf16|fp16|fp8` times each kernel, and "
        "its twin in plain "
        "PyTorch at the shapes of one packed batch; the attention's name ends in the length of the sequences. "
        "Shares are of a bf16 matrix product on the same card, cold and after seconds of products, when the power "
        "limit holds. "
        "Twins are oracles before they are baselines: those of `(fp8_)norm_linear_*` and `(fp8_)linear_residual_*` "
        "multiply in fp32."
    )
    paths = files(results, "kernels-*.csv")
    if not paths:
        yield "Not measured."
    for path in paths:
        rows = read_rows(path)
        first = rows[0]
        yield f"### {first['model']}, {first['dtype']}"
        yield table(
            ["kernel", "ms", "rate", "share, cold", "share, sustained", "x twin"],
            [kernel_line(row) for row in rows],
        )
        yield (
            f"{int(first['tokens']):,} tokens; matrix product "
            f"{show(number(first, 'matmul_tflops_cold'))} TFLOP/s cold, "
            f"{show(number(first, 'matmul_tflops_sustained'))} sustained. " + conditions_line(rows, path)
        )


def kernel_line(row: Row) -> list[str]:
    rate, median = number(row, "rate"), number(row, "ms_median")
    shares = [ABSENT, ABSENT]
    if row["unit"] == "TFLOP/s" and rate is not None:
        limits = [number(row, f"matmul_tflops_{state}") for state in ("cold", "sustained")]
        shares = [percent(rate / limit if limit else None) for limit in limits]
    rated = f"{show(rate)} {row['unit']}"
    return [f"`{row['kernel']}`", show(median, ".3f"), rated, *shares, times(number(row, "twin_ms_median"), median)]


def limits_section(results: Path) -> Iterator[str]:
    yield "## What limits it"
    layers = [text for path in files(results, "kernels-*.csv") if (text := layer_text(read_rows(path)))]
    yield (
        "A layer is five launches: the LayerNorms, the rotary embedding, the GELU and the residual sums are inside the "
        "products beside them. What is left is the rate of those products and of attention."
    )
    if layers:
        yield "\n".join(f"- {text}" for text in layers)
    else:
        yield "No kernels were measured."
    shares = {size: share for size in SIZES if (share := best_share(results, size)) is not None}
    if shares:
        told = ", ".join(f"{size} {percent(share)}" for size, share in shares.items())
        narrow, wide = next(iter(shares.values())), next(reversed(shares.values()))
        yield f"Best share of the matrix product's rate in 16 bits by model: {told}." + (
            " Narrow models are below wide ones: their products are narrower, and attention over small head "
            "dimensions leaves the matrix units idle."
            if narrow < wide
            else ""
        )


def best_share(results: Path, size: str) -> float | None:
    """The greater share of ours in bf16 and fp16."""
    rows = engine_rows(results, size)
    shares = [number(rows[engine], "share_of_matmul") for engine in ("ours-bf16", "ours-fp16") if engine in rows]
    return max((share for share in shares if share is not None), default=None)


def layer_text(rows: Sequence[Row]) -> str | None:
    """Where the time of one layer over full-length sequences goes; None where not all launches were timed."""
    spent = {row["kernel"].removeprefix("fp8_"): (row["kernel"], number(row, "ms_median")) for row in rows}
    parts = [spent[name] for name in LAYER if spent.get(name, ("", None))[1]]
    if len(parts) < len(LAYER):
        return None
    total = sum(float(ms or 0) for _, ms in parts)
    shares = ", ".join(f"`{name}` {100 * float(ms or 0) / total:.0f} %" for name, ms in parts)
    first = rows[0]
    cold, sustained = number(first, "matmul_tflops_cold"), number(first, "matmul_tflops_sustained")
    power = (
        f"; plain products sustained run at {percent(sustained / cold)} of their cold rate, the card's power limit "
        "holding"
        if cold and sustained and sustained < cold
        else ""
    )
    return f"{first['model']} {first['dtype']}, {int(first['tokens']):,} tokens: {total:.2f} ms, of it {shares}{power}."
