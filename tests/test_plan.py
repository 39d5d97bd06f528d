"""The GPU time that a run foretells rests on measured rates."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from virnucpro.split.card_rates import read_rates

ROOT = Path(__file__).parents[1]
MEASURED = sorted((ROOT / "benchmarks" / "results").glob("engines-*.csv"))
DIMENSIONS = {"8M": 320, "35M": 480, "150M": 640, "650M": 1280, "3B": 2560}


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_the_rates_of_the_estimate_are_those_of_the_benchmarks(path: Path) -> None:
    told = {int(width): float(rate) for width, rate in read_rates()["models"].items()}
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["engine"] == "ours-fp16" and "H100" in row["device"]]
    assert len(rows) <= 1
    if rows and (dimensions := DIMENSIONS[rows[0]["model"]]) in told:
        assert told[dimensions] == round(float(rows[0]["tflops"]))


def test_some_rate_was_measured() -> None:
    assert MEASURED
