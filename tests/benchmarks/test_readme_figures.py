"""The figures of README.md are those of the result files and of what was seen of the faults."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median

import pytest
from benchmarks.pages.result_tables import cut, number, read_rows
from reliability import recorded

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text()


def rate(gpus: str) -> str:
    (row,) = [row for row in read_rows(RESULTS / "gpus.csv") if row["run"] == gpus]
    assert (row["model"], row["precision"]) == ("esm2_t33_650M_UR50D", "fp16") and "H100" in row["device"]
    return f"{math.floor((number(row, 'tokens_per_second') or 0) / 1000):,},000 "


def of_the_script(program: str) -> float:
    rows = [row for row in read_rows(RESULTS / "run-650M.csv") if row["proteins"] == "4450" and row["step"] == "whole"]
    ours, script = (
        median(float(row["end"]) for row in rows if (row["program"], row["kernels"]) == who)
        for who in ((program, "warm"), ("plain script", "-"))
    )
    return ours / script


def cosine(precision: str) -> str:
    (row,) = [row for row in read_rows(RESULTS / "parity-650M.csv") if row["precision"] == precision]
    assert row["sequences"] == "200"
    return f"{cut(number(row, 'pooled_cosine_min'))} in {precision}"


@pytest.mark.parametrize(
    "said",
    [
        f"{rate('1')}tokens a second with one, {rate('4').strip()} with four",
        f"takes {of_the_script('virnucpro-embed'):.2f} of the time of a plain Hugging Face script, "
        f"and {of_the_script('virnucpro embed'):.2f} by `virnucpro embed`",
        f"a cosine of {cosine('fp16')}, {cosine('fp32')}",
        f"{len(recorded())} kinds of faults",
        f"in {sum(len(seen.cases) for seen in recorded().values())} cases",
    ],
)
def test_it_says(said: str) -> None:
    assert said in README
