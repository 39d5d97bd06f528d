"""The engines' rates as an SVG: one panel of bars per model size, each panel on its own scale from zero."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from benchmarks.pages.result_tables import SIZES, Row, distinct, number, read_rows

#: What others offer, in the order of the columns that compare with them.
PEERS = ("hugging-face-bf16", "fair-esm-fp16", "fair-esm-fp32")
LABELS = {
    "hugging-face-bf16": "Hugging Face bf16",
    "fair-esm-fp16": "fair-esm fp16 autocast",
    "fair-esm-fp32": "fair-esm fp32",
}
WIDTH, LEFT, BAR_WIDTH = 860, 180, 440
BAR, STEP, HEAD = 16, 24, 38
OURS, OTHERS = "#1f6f8b", "#a9b4bd"


def engine_label(engine: str) -> str:
    """An engine's name as the page gives it."""
    return LABELS.get(engine, engine.replace("ours-", "virnucpro-embed "))


def bar(row: Row, longest: float, top: int) -> str:
    """One engine: name, bar, and its rate with the share of the matrix product's."""
    rate, share = number(row, "tokens_per_second") or 0.0, number(row, "share_of_matmul")
    width = BAR_WIDTH * rate / longest
    told = f"{rate:,.0f} tokens/s" + ("" if share is None else f", {100 * share:.1f} %")
    colour = OURS if row["engine"].startswith("ours") else OTHERS
    base = top + BAR - 4
    return (
        f'<text x="{LEFT - 8}" y="{base}" text-anchor="end">{escape(engine_label(row["engine"]))}</text>'
        f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>'
        f'<text x="{LEFT + width + 6:.1f}" y="{base}">{told}</text>'
    )


def engines_svg(results: Path) -> str:
    """The picture of all ``engines-<size>.csv``; a size without one is named as not measured."""
    measured: Mapping[str, list[Row]] = {size: read_rows(results / f"engines-{size}.csv") for size in SIZES}
    parts, top = [], 44
    for size, rows in measured.items():
        title = f"{size}: {' and '.join(distinct(rows, 'device'))}" if rows else f"{size}: not measured"
        parts.append(f'<text x="{LEFT}" y="{top + 16}" font-weight="bold">{escape(title)}</text>')
        top += HEAD if rows else STEP
        longest = max((number(row, "tokens_per_second") or 0.0 for row in rows), default=0.0) or 1.0
        for row in sorted(rows, key=lambda row: number(row, "tokens_per_second") or 0.0):
            parts.append(bar(row, longest, top - HEAD + STEP + 2))
            top += STEP
    height = top + 16
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            'font-family="sans-serif" font-size="13" fill="#222">',
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
            '<text x="16" y="24" font-size="15">ESM-2 tokens per second, and share of the rate of a bf16 matrix '
            "product in the same run</text>",
            *parts,
            "</svg>\n",
        ]
    )
