"""Attention is as fast as the goals want it in the newest result file."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.pages.result_tables import Row, files, number, read_rows

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
ROWS = [row for path in files(RESULTS, "attention-*.csv") for row in read_rows(path)]


def rate(row: Row, name: str) -> float:
    value = number(row, f"{name}_tflops")
    assert value
    return value


@pytest.mark.parametrize("length", ["160", "512", "1024", "4096", "16384", "34352"])
@pytest.mark.parametrize("head_dim", ["64", "128"])
def test_attention_is_no_slower_than_the_better_back_end(head_dim: str, length: str) -> None:
    rows = [row for row in ROWS if (row["head_dim"], row["length"]) == (head_dim, length)]
    assert rows
    for row in rows:
        wanted = 0.95 if int(length) < 1000 else 1.0
        assert rate(row, "ours") >= wanted * max(rate(row, "flash"), rate(row, "cudnn"))
