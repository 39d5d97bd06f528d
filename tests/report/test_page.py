"""The whole page: MultiQC's drawing of a results folder, looked at in a browser."""

from __future__ import annotations

import html
import json
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from drawn_page import REALISTIC, needs_multiqc, run_report
from synthetic_results import Run, make_results

from virnucpro import __version__
from virnucpro.output.files import embedding_parts
from virnucpro.output.schema import METADATA_KEY, encode_metadata
from virnucpro.report.versions import software_versions

#: Letters that neither HTML nor YAML takes as they are.
MARKS = """'"></td>é😀<i>"""


@needs_multiqc
def test_the_page_needs_no_other_file_and_no_network(page: Path) -> None:
    text = page.read_text()
    assert len(text) < 10_000_000
    text = re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.DOTALL)  # strings of scripts load nothing
    loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']([^\"']+)", text)
    loaded += re.findall(r"<link[^>]*\shref=[\"']([^\"']+)", text)
    assert [address[:60] for address in loaded if not address.startswith("data:")] == []


@needs_multiqc
def test_software_has_the_section_that_pages_of_multiqc_have_for_it(tmp_path: Path) -> None:
    name = "esm2_t33_650M_UR50D"
    results = make_results(tmp_path / "results", Run(records=200, shards=2, marks=MARKS))
    finished = run_report(results, tmp_path / "report", "--nextflow-version", "25.04.4")
    assert finished.returncode == 0, finished.stderr
    text = (tmp_path / "report" / "multiqc_report.html").read_text()
    (table,) = re.findall(r'<table[^>]*id="mqc_versions_table">.*?</table>', text, re.DOTALL)
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td><samp>(.*?)</samp></td></tr>", table)
    found = {html.unescape(software): version for _group, software, version in rows}
    assert found == {
        "virnucpro-embed": __version__,
        "Nextflow": "25.04.4",
        "PyTorch": "2.11.0",
        "CUDA": "13.0",
        "Python": platform.python_version(),
        **{each: version(each.lower()) for each in ("NumPy", "PyArrow", "MultiQC")},
        f"{name}{MARKS}": "weights sha256 0123456789ab",
    }
    assert MARKS not in table
    assert [group for group, *_ in rows if group] == ["EMBED_SHARD", "Model", "REPORT", "Workflow"]


def test_versions_that_differ_are_all_told_and_absent_ones_left_out(tmp_path: Path) -> None:
    results = make_results(tmp_path / "results", Run(records=20, shards=1))
    (part,) = embedding_parts(results)
    for told, expected in (
        ({"torch": "2.11.0, 2.12.0", "cuda": None}, {"PyTorch": ["2.11.0", "2.12.0"]}),
        ({"torch": "none", "cuda": None}, None),
        ({"torch": "2.11.0", "model_revision": "abc"}, {"PyTorch": ["2.11.0"], "CUDA": ["13.0"]}),
    ):
        table = pq.read_table(part)
        origin = json.loads(table.schema.metadata[METADATA_KEY]) | {"cuda": "13.0"} | told
        pq.write_table(table.replace_schema_metadata(encode_metadata(origin)), part)
        found = software_versions(results)
        assert found.get("EMBED_SHARD") == expected
        assert found["Model"] == {"esm2_t33_650M_UR50D": [told.get("model_revision", "weights sha256 0123456789ab")]}
        assert "Nextflow" not in found["Workflow"]


@needs_multiqc
def test_a_run_that_only_reused_has_a_page(tmp_path: Path) -> None:
    results = make_results(tmp_path / "results", Run(records=0, shards=0))
    finished = run_report(results, tmp_path / "report")
    assert finished.returncode == 0, finished.stderr
    assert "Nothing was computed" in (tmp_path / "report" / "multiqc_report.html").read_text()


@needs_multiqc
def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    finished = run_report(tmp_path, tmp_path / "report")
    assert finished.returncode == 66
    assert "manifest.parquet does not exist" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


#: Every plot of the page with the marks that Plotly drew in it, once it is scrolled to.
DRAWN = """
return Array.from(document.querySelectorAll(".js-plotly-plot")).map(plot => ({
  id: plot.id,
  marks: plot.querySelectorAll(".scatterlayer path, .barlayer path, .trace path").length,
}));
"""


#: From the end to the top again: a plot that is drawn moves what is below it, which scrolling may pass then.
FURTHER = """
const page = document.documentElement;
const ended = window.scrollY + window.innerHeight >= page.scrollHeight - 2;
window.scrollTo({top: ended ? 0 : window.scrollY + 1000, behavior: "instant"});
"""


@needs_multiqc
def test_a_browser_draws_every_plot_without_an_error(page: Path, browser: Any, tmp_path: Path) -> None:
    browser.get(page.as_uri())
    expected = {
        "embedding-map",
        "length-map",
        "utilization",
        "power",
        "memory",
        "throughput",
        "time",
        "queue_states",
        "waited",
    }
    expected |= {"packing", "records", "reasons", "lengths"}
    deadline = time.monotonic() + 60
    found: dict[str, int] = {}
    while time.monotonic() < deadline and not all(any(name in plot for plot in found) for name in expected):
        browser.execute_script(FURTHER)
        time.sleep(0.2)
        found = {plot["id"]: plot["marks"] for plot in browser.execute_script(DRAWN)}
    assert sorted(name for name in expected if not any(name in plot for plot in found)) == []
    assert [plot for plot, marks in found.items() if marks == 0] == []
    assert found["embedding-map"] >= 5_000
    rows = [row.text.split()[0] for row in browser.find_elements("css selector", "#general_stats_table_table tbody tr")]
    assert rows == [f"shard-{shard:05d}" for shard in range(REALISTIC.shards)]
    errors = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert errors == []
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    addresses = [event["params"]["request"]["url"] for event in sent if event["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in addresses
    assert [address for address in addresses if address.startswith(("http", "ws", "ftp", "//"))] == []
    browser.execute_script("window.scrollTo({top: 0, behavior: 'instant'})")
    time.sleep(0.5)
    picture = tmp_path / "report.png"
    assert browser.save_screenshot(str(picture))
    assert picture.stat().st_size > 20_000


#: Runs if any of it is taken for HTML, in an element, an attribute or a script.
ATTACK = """'"></td></script><script>window.owned = 1</script><img src=x onerror="window.owned = 2">"""


@needs_multiqc
@pytest.mark.parametrize("shards", [3, 70])  # above 60, lines for each device and host
def test_no_name_runs_as_script(shards: int, browser: Any, tmp_path: Path) -> None:
    results = make_results(tmp_path / "results", Run(records=2_000, shards=shards, marks=ATTACK))
    finished = run_report(results, tmp_path / "report")
    assert finished.returncode == 0, finished.stderr
    browser.get((tmp_path / "report" / "multiqc_report.html").as_uri())
    for _ in range(40):
        browser.execute_script("window.scrollBy(0, 1000)")
        time.sleep(0.1)
    assert {plot["id"] for plot in browser.execute_script(DRAWN)} >= {"embedding-map"}
    names = browser.execute_script(
        "return Array.from(document.querySelectorAll('.legendtext')).map(e => e.textContent)"
    )
    assert shards < 60 or f"node1{ATTACK} GPU-00000001-0000{ATTACK}" in names, names
    assert browser.execute_script("return window.owned") is None
    assert browser.find_elements("css selector", "img[src=x]") == []
    assert f"esm2_t33_650M_UR50D{ATTACK}" in browser.execute_script("return document.body.textContent")
