"""docs/scale.md holds what benchmarks/scale.py computes from the results in the tree."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_the_latest_figures(scale: ModuleType) -> None:
    text = scale.PAGE.read_text()
    assert text == scale.page(text), "run `python benchmarks/scale.py`"
    assert text.count(scale.BEGIN) == text.count(scale.END) == 1


def test_costs_follow_from_the_measurement(scale: ModuleType) -> None:
    step = scale.Step("split", "here", seconds=2e-6, bytes_written=100.0, mib=200.0, mib_grows=10 / 2**20)
    assert step.cells(10**6) == ("2.0 s", "100.0 MB", "219.7 MB")
    assert step.cells(10**9) == ("33.3 min", "100.0 GB", "10.2 GB")
    assert {step.name.split(",")[0] for step in scale.steps()} == {"split", "embed", "merge", "report"}
