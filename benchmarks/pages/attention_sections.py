"""Sections of docs/performance.md on attention beside PyTorch's, and on the two forms of the layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.pages.result_tables import (
    Row,
    conditions_line,
    distinct,
    files,
    number,
    percent,
    read_rows,
    show,
    table,
    times,
)

BACKENDS = ("flash", "cudnn")


def attention_section(results: Path) -> Iterator[str]:
    yield "## Attention"
    yield (
        "`python -m benchmarks.measurements.bench_attention --dtype fp16|bf16` times ours, the plain Triton kernel "
        "that other GPUs take, "
        "and PyTorch's SDPA with its flash and cuDNN back ends, in turn, in TFLOP/s. Ours reads queries, keys and "
        "values where the product before it leaves them; SDPA has them apart and contiguous. Where a row names "
        "lengths from and to, a packed batch has one sequence of each, and SDPA pads them to the longest."
    )
    paths = files(results, "attention-*.csv")
    if not paths:
        yield "Not measured."
    for path in paths:
        rows = read_rows(path)
        yield f"### {rows[0]['dtype']}"
        heads = ["head dimension", "tokens", "ours", "plain", "flash", "cuDNN", "ours / better of these two"]
        yield table(heads, [attention_line(row) for row in rows], left=2)
        yield conditions_line(rows, path)


def attention_line(row: Row) -> list[str]:
    rates = {name: number(row, f"{name}_tflops") for name in ("ours", "plain", *BACKENDS)}
    best = max(rates[name] or 0 for name in BACKENDS)
    ratio = rates["ours"] / best if rates["ours"] and best else None
    return [row["head_dim"], row["length"], *map(show, rates.values()), show(ratio, ".2f")]


def paths_section(results: Path) -> Iterator[str]:
    yield "## Two forms of the layers"
    yield (
        "On Hopper the layers come in two forms: *fused*, three products with their norms, rotary embedding, GELU and"
        " residual sums inside, and *plain*, as other GPUs run them: PyTorch's products, which add to the stream as "
        "they are written, with passes of ours between them and, up to a width that differs by card "
        "(`kernels/tiles.json`), norms, rotary embedding and GELU inside products in Triton. "
        "`python -m benchmarks.measurements.bench_paths FASTA` measures both, with random weights on an even sample "
        "of the proteins and after seconds of the same work, beside Hugging Face's `EsmModel` in bf16; the pipeline "
        "runs the faster one (`virnucpro.model.paths`), and either where they are within 1 %. 8M runs fused in 16 bits "
        "too, for accuracy."
    )
    path = results / "paths.csv"
    rows = read_rows(path)
    if not rows:
        yield "Not measured."
        return
    rates = {(row["model"], row["precision"], row["path"]): row for row in rows}
    lines = []
    for size in distinct(rows, "model"):
        peer = number(rates.get((size, "bf16", "hugging-face"), {}), "tokens_per_second")
        for precision in ("fp16", "bf16", "fp8"):
            if (size, precision, "fused") in rates and (size, precision, "plain") in rates:
                fused, plain = (rates[size, precision, form] for form in FORMS)
                lines.append(path_line(size, precision, fused, plain, peer))
    heads = ["model", "precision", *(f"{form}, {what}" for what in ("tokens/s", "share") for form in FORMS)]
    yield table([*heads, "faster by", "x Hugging Face"], lines, left=2)
    yield (
        "Shares are of the rate of a bf16 product of two 8192x8192 matrices: on the rested card / right after these "
        "runs, while the power limit still holds the clock down. "
    ) + conditions_line(rows, path)


FORMS = ("fused", "plain")
#: Rates that differ by less than this share change places from card to card.
ALIKE = 0.01


def path_line(size: str, precision: str, fused: Row, plain: Row, peer: float | None) -> list[str]:
    tokens = [number(row, "tokens_per_second") or 0 for row in (fused, plain)]
    lead = f"{FORMS[tokens[1] > tokens[0]]}, {100 * (max(tokens) / min(tokens) - 1):.0f} %"
    if min(tokens) >= (1 - ALIKE) * max(tokens):
        lead = "alike"
    shares = map(shares_of, (fused, plain))
    return [size, precision, *map(show, tokens), *shares, lead, times(max(tokens), peer)]


def shares_of(row: Row) -> str:
    rate = number(row, "tflops")
    limits = (number(row, name) for name in ("matmul_tflops", "matmul_tflops_after"))
    return " / ".join(percent(rate / limit if rate and limit else None) for limit in limits)
