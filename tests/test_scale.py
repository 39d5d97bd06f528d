"""docs/scale.md holds what benchmarks/pages/scale.py computes from the results in the tree."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pages import scale

ROOT = Path(__file__).parents[1]


def test_the_page_holds_the_latest_figures() -> None:
    text = scale.PAGE.read_text()
    assert text == scale.page(text), "run `python -m benchmarks.pages.scale`"
    assert text.count(scale.BEGIN) == text.count(scale.END) == 1


def test_costs_follow_from_the_measurement() -> None:
    step = scale.Step("split", "here", seconds=2e-6, bytes_written=100.0, mib=200.0, mib_grows=10 / 2**20)
    assert step.cells(10**6) == ("2.0 s", "100.0 MB", "219.7 MB")
    assert step.cells(10**9) == ("33.3 min", "100.0 GB", "10.2 GB")
    assert {step.name.split(",")[0] for step in scale.steps()} == {"split", "embed", "merge", "report"}
