"""The section on several GPUs and their curve say what their result file holds."""

from __future__ import annotations

import xml.etree.ElementTree
from pathlib import Path

import pytest
from benchmarks.environment import write_csv
from benchmarks.pages.gpus_section import gpus_section, gpus_svg


def line_of(page: str, start: str) -> str:
    """The only line of a page that starts so."""
    (line,) = [line for line in page.splitlines() if line.startswith(start)]
    return line


def test_the_page_says_what_holds(tmp_path: Path) -> None:
    assert list(gpus_section(tmp_path, "pictures")) == []
    common = {"shards": 4, "tokens": 8000, "shard_copies": 11, "token_budget": 65536, "checks": 3, "failed": ""}
    rows = [
        {"run": "1", "gpus": 1, "embedding_seconds": 84.0, "tokens_per_second": 370000.0} | common,
        {"run": "4", "gpus": 4, "efficiency": 0.9697, "tokens_per_second": 1435000.0} | common,
        {"run": "kill", "gpus": 4, "gap_seconds_after_kill": 0.02, "killed_rows": 1042} | common,
    ]
    rows[1] |= {"vectors_equal": 71200, "vectors_compared": 71200, "whole_efficiency": 0.9, "energy_ratio": 0.96}
    rows[1]["failed"] = "too slow"
    rows = [dict.fromkeys([key for row in rows for key in row], "") | row for row in rows]
    write_csv(tmp_path / "gpus.csv", rows)
    (tmp_path / "gpus").mkdir()
    (tmp_path / "gpus" / "report.html").touch()
    page = "\n\n".join(gpus_section(tmp_path, "pictures"))
    assert line_of(page, "| 1 |").startswith("| 1 | 4 | 8,000 | 84.0 | 370,000 | - |")
    assert line_of(page, "| 4 GPUs: throughput").endswith("| ≥ 0.970 | 0.970 | **missed** |")
    assert line_of(page, "| 4 GPUs: whole run").endswith("| ≥ 0.850 | 0.900 | met |")
    assert line_of(page, "| 4 GPUs: energy").endswith("| ≤ 0.0300 | 0.0400 | **missed** |")
    assert line_of(page, "| kill: longest").endswith("| 0.020 | met |")
    assert line_of(page, "| kill: least").endswith("| - | not measured |")
    assert "**Failed: 4: too slow.**" in page and "](pictures/gpus.svg)" in page
    assert "71,200 of 71,200" in page and "1,042 vectors written" in page and "`report.html`" in page
    write_csv(tmp_path / "gpus.csv", rows[:1])
    assert "All 3 checks of the script hold." in "\n\n".join(gpus_section(tmp_path, "pictures"))


def test_the_curve_has_a_point_for_each_run_and_the_line_of_one(tmp_path: Path) -> None:
    rows = [
        {"run": "1", "gpus": 1, "tokens_per_second": 100.0},
        {"run": "4", "gpus": 4, "tokens_per_second": 300.0},
        {"run": "kill", "gpus": 4, "tokens_per_second": 250.0},
    ]
    write_csv(tmp_path / "gpus.csv", rows)
    root = xml.etree.ElementTree.fromstring(gpus_svg(tmp_path))
    (one, four) = root.iter("{http://www.w3.org/2000/svg}circle")
    line = [path.attrib["d"] for path in root.iter("{http://www.w3.org/2000/svg}path")][1]
    right, high = map(float, line.partition("L")[2].split())
    base = float(line.partition("L")[0].split()[1])
    assert float(four.attrib["cx"]) == right
    assert (base - float(four.attrib["cy"])) / (base - high) == pytest.approx(0.75, abs=0.01)
    assert (base - float(one.attrib["cy"])) / (base - high) == pytest.approx(0.25, abs=0.01)
