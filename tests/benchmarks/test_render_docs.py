"""The pages on performance and parity are what the result files say, whichever of these there are."""

from __future__ import annotations

import csv
import json
import re
import shutil
import xml.etree.ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from benchmarks.pages.long_sections import long_protein_section, self_check_costs
from benchmarks.pages.render_docs import PLOT, render
from benchmarks.pages.result_tables import Goal, constant, cut, parameters_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PERFORMANCE, PARITY = "docs/performance.md", "docs/parity.md"
MACHINE = {
    "device": "NVIDIA H100",
    "torch": "2.11.0",
    "cuda": "13.0",
    "commit": "abc1234",
    "data": "viruses_sprot.fasta",
}


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_engines(folder: Path, size: str, rates: Mapping[str, tuple[float, float]]) -> None:
    """A file of bench_engines.py with a rate and a share for each engine."""
    write(
        folder / f"engines-{size}.csv",
        [
            {"model": size, "engine": engine, "sequences": 4450, "tokens": 1950292, "tokens_per_second": rate}
            | {"tflops": 500.0, "peak_gib": 5.0, "share_of_matmul": share, "matmul_tflops": 788.0, "budget": 65536}
            | MACHINE
            for engine, (rate, share) in rates.items()
        ],
    )


def line_of(page: str, start: str) -> str:
    """The only line of a page that starts so."""
    (line,) = [line for line in page.splitlines() if line.startswith(start)]
    return line


@pytest.mark.parametrize("name", [PLOT, PERFORMANCE, PARITY])
def test_the_committed_files_are_what_the_results_give(name: str) -> None:
    assert (ROOT / name).read_text() == render(RESULTS)[name], "run make docs and commit what it writes"


def test_nothing_measured_is_said_so(tmp_path: Path) -> None:
    pages = render(tmp_path)
    assert pages[PERFORMANCE].count("Not measured") >= 8
    assert "| met |" not in pages[PERFORMANCE]
    assert "missed" not in pages[PERFORMANCE]
    assert "Not measured." in pages[PARITY]
    assert pages[PLOT].count("not measured") == 4


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.csv")), ids=lambda path: path.name)
def test_each_result_file_alone_makes_pages_that_name_it(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path)
    assert path.name in "".join(render(tmp_path).values())


def test_ratios_and_goals(tmp_path: Path) -> None:
    rates = {"fair-esm-fp32": (20e3, 0.04), "fair-esm-fp16": (60e3, 0.08), "hugging-face-bf16": (150e3, 0.27)}
    ours = {"ours-fp16": (390e3, 0.659), "ours-bf16": (400e3, 0.7), "ours-fp8": (538e3, 0.94)}
    write_engines(tmp_path, "650M", rates | ours)
    page = render(tmp_path)[PERFORMANCE]
    assert "| 400,000 | 500.0 | 70.0 % | 2.7 | 6.7 | 20.0 | 5.00 | 4,450 |" in line_of(page, "| virnucpro-embed bf16")
    assert line_of(page, "| 650M, bf16: share").endswith("| ≥ 0.700 | 0.700 | met |")
    assert line_of(page, "| 650M, fp16: share").endswith("| ≥ 0.660 | 0.659 | **missed** |")
    assert line_of(page, "| 650M, fp16: times Hugging Face").endswith("| 2.6 | met |")
    assert line_of(page, "| 650M, fp16: times fair-esm fp16").endswith("| 6.5 | **missed** |")
    assert line_of(page, "| 650M, fp16: times fair-esm fp32").endswith("| 19.5 | met |")
    assert line_of(page, "| 650M, fp8: times our own bf16").endswith("| ≥ 1.35 | 1.34 | **missed** |")
    assert line_of(page, "| 3B, bf16").endswith("| not measured |")


def test_both_forms_of_the_layers(tmp_path: Path) -> None:
    base = {"model": "650M", "precision": "bf16", "matmul_tflops": 800.0, "matmul_tflops_after": 700.0} | MACHINE
    fused = {"path": "fused", "tokens_per_second": 1000.0, "tflops": 560.0}
    plain = {"path": "plain", "tokens_per_second": 995.0, "tflops": 540.0}
    write(tmp_path / "paths.csv", [base | fused, base | plain])
    page = render(tmp_path)[PERFORMANCE]
    assert line_of(page, "| 650M | bf16 |").split("|")[3:-1] == [
        " 1,000 ", " 995 ", " 70.0 % / 80.0 % ", " 67.5 % / 77.1 % ", " alike ", " - ",
    ]  # fmt: skip
    assert line_of(page, "| 650M, bf16, plain form").endswith("| ≥ 0.700 | 0.720 | met |")
    write(tmp_path / "paths.csv", [base | fused, base | plain | {"tokens_per_second": 1200.0}])
    assert "| plain, 20 % |" in line_of(render(tmp_path)[PERFORMANCE], "| 650M | bf16 |")


def test_a_peer_that_was_not_run_is_named(tmp_path: Path) -> None:
    write_engines(tmp_path, "8M", {"ours-fp16": (9.9e6, 0.25), "fair-esm-fp16": (1e6, 0.02)})
    page = render(tmp_path)[PERFORMANCE]
    assert "Not measured at this size: Hugging Face bf16, fair-esm fp32." in page
    assert "| - | 9.9 | - |" in line_of(page, "| virnucpro-embed fp16")


def test_the_goals_of_a_whole_process(tmp_path: Path) -> None:
    figures = {"share_of_in_memory": 0.949, "starved_share": 0.0, "startup_seconds": 12.4, "batches": 240}
    write(tmp_path / "process-650M.csv", [{"model": "650M", "precision": "fp16", "tokens": 1000} | figures | MACHINE])
    page = render(tmp_path)[PERFORMANCE]
    verdicts = [line.split("|")[-2].strip() for line in page.splitlines() if line.startswith("| whole process")]
    assert verdicts == ["**missed**", "met", "**missed**"]
    assert "| 650M fp16 | - | - | 94.9 % | 0.0 % | 12.4 | 240 | 1,000 |" in page


def test_bounds_of_each_precision(tmp_path: Path) -> None:
    common = {"model": "650M", "weights": "random, sharpened", "logit_deviation": 3.0, "sequences": 200} | MACHINE
    figures = [("fp32", 0.99999995, 2.1e-5), ("fp16", 0.999989, 4.9e-3), ("bf16", 0.9998, 4e-2), ("fp8", 0.9989, 0.5)]
    rows = [{"precision": p, "pooled_cosine_min": c, "residue_relative_l2_max": e} | common for p, c, e in figures]
    write(tmp_path / "parity-650M.csv", rows)
    page = render(tmp_path)[PARITY].split("## 650M")[1]
    assert re.findall(r"(met|missed)", page)[:7] == ["met", "missed", "missed", "met", "met", "met", "missed"]
    assert "0.9999999 (≥ 0.9999999: met)" in page
    assert "2.1e-5 (≤ 2e-5: **missed**)" in page
    assert "logits: 3.00" in page


def test_a_run_of_the_pipeline(tmp_path: Path) -> None:
    folder = tmp_path / "pipeline-650M"
    folder.mkdir()
    summary = {
        "model": {"name": "esm2_t33_650M_UR50D"},
        "versions": {"torch": "2.11.0", "cuda": "13.0"},
        "parameters": {"precision": "fp16"},
        "records": 4455,
        "tokens": 1950292,
        "shards": 2,
        "devices": [{"name": "NVIDIA H100"}],
        "verdict": ["All of it went well."],
    }
    (folder / "run_summary.json").write_text(json.dumps(summary))
    (folder / "trace.txt").write_text(
        "task_id\tname\tstatus\tduration\trealtime\tpeak_rss\n1\tSPLIT_FASTA\tCOMPLETED\t2s\t1s\t1 GB\n"
    )
    page = render(tmp_path)[PERFORMANCE]
    assert "4,455 records, 1,950,292 tokens computed in 2 shards" in page
    assert "- All of it went well." in page
    assert "| SPLIT_FASTA | COMPLETED | 2s | 1s | 1 GB |" in page


def test_what_residues_cost(tmp_path: Path) -> None:
    layout = {"gb": 1.0, "dim": 1280, "rounds": 3, "cpu": "EPYC x2", "load_average": 1.5, "commit": "abc1234"}
    rows = [
        {"layout": "raw", "mb_per_second": 1000.0, "share_of_raw": 1.0, "ms_key_polars": "", **layout},
        {"layout": "parquet-lists", "mb_per_second": 50.0, "share_of_raw": 0.05, "ms_key_polars": 900.0, **layout},
    ]
    write(tmp_path / "residues.csv", rows)
    run = {"model": "650M", "layers": 1, **MACHINE}
    steps = [
        {"step": "residues", "seconds": 25.0, "share_of_pooled_process_tokens_per_second": 0.87, **run},
        {"step": "merge", "seconds": 9.5, "share_of_pooled_process_tokens_per_second": "", **run},
    ]
    write(tmp_path / "residues-gpu.csv", steps)
    page = render(tmp_path)[PERFORMANCE].split("## Vectors of single residues")[1].split("## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    assert cells[2][:3] == ["nothing but the bytes", "1,000", "1.00"]
    assert cells[3][:3] == ["Parquet, lists of lists of halves (earlier results)", "50", "0.05"]
    assert cells[3][7] == "900"
    assert cells[6][:6] == ["650M", "residues", "1", "25.0", "-", "0.87"]
    assert cells[7][:6] == ["650M", "merge", "1", "9.5", "-", "-"]
    assert "EPYC x2 cores, load average 1.5, commit abc1234" in page and "NVIDIA H100" in page


def test_the_picture_is_sound(tmp_path: Path) -> None:
    write_engines(tmp_path, "650M", {"hugging-face-bf16": (100e3, 0.2), "ours-bf16": (400e3, 0.7)})
    space = "{http://www.w3.org/2000/svg}"
    root = xml.etree.ElementTree.fromstring(render(tmp_path)[PLOT])
    _, *bars = root.findall(f"{space}rect")
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert widths[1] == pytest.approx(4 * widths[0], abs=0.2)
    assert "400,000 tokens/s, 70.0 %" in [text.text for text in root.findall(f"{space}text")]
    assert max(float(text.attrib["y"]) for text in root.findall(f"{space}text")) < float(root.attrib["height"])


@pytest.mark.parametrize("name", [PERFORMANCE, PARITY])
def test_what_the_pages_name_is_there(name: str) -> None:
    page = (ROOT / name).read_text()
    paths = re.findall(r"`((?:benchmarks|bin)/[\w./-]+)", page) + re.findall(r"python (benchmarks/\S+)", page)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_a_result_file_that_no_section_knows_is_listed(tmp_path: Path) -> None:
    for name in ("merge-large", "head_node", "unheard"):
        write(tmp_path / f"{name}.csv", [{"seconds": 1}])
    page = render(tmp_path)[PERFORMANCE]
    assert "| `benchmarks/results/merge-large.csv` | `benchmarks/measurements/bench_merge.py` |" in page
    assert "| `benchmarks/results/head_node.csv` | `benchmarks/measurements/bench_head_node.py` |" in page
    assert "| `benchmarks/results/unheard.csv` | - |" in page


def test_figures_are_never_flattered() -> None:
    assert cut(0.99999999) == "0.9999999"
    assert cut(1.0000001) == "1.0000000"
    assert not Goal("share", 0.70).met(0.6999)
    assert not Goal("share", 0.01, most=True).met(0.0101)


def test_sizes_are_read_from_names() -> None:
    assert sorted(["parity-3B", "parity-650M", "parity-esm2_8M_x"], key=parameters_of)[0] == "parity-esm2_8M_x"
    assert parameters_of("cpu") == float("inf")


def test_constants_are_read_from_the_source() -> None:
    from benchmarks.inputs import SHARP_LOGITS

    from virnucpro.model.parameters import LOW_QUERIES_HEAD_DIM

    assert constant("benchmarks/inputs.py", "SHARP_LOGITS") == SHARP_LOGITS
    assert constant("bin/virnucpro/model/parameters.py", "LOW_QUERIES_HEAD_DIM") == LOW_QUERIES_HEAD_DIM
    with pytest.raises(LookupError, match="no constant NONE"):
        constant("benchmarks/inputs.py", "NONE")


def test_long_proteins_and_the_self_check_have_a_row_for_each_device(tmp_path: Path) -> None:
    assert not [*long_protein_section(tmp_path), *self_check_costs(tmp_path)]
    common = {"model": "m", "device": "H100", "precision": "fp16"}
    sizes = {"residues": 34350, "seconds": 0.475, "peak_memory_bytes": 3 << 30, "error": ""}
    failed = {"residues": 34350, "seconds": "", "peak_memory_bytes": "", "error": "out of memory"}
    write(
        tmp_path / "long-protein-m-cuda.csv",
        [common | {"mode": "full"} | sizes, common | {"mode": "window"} | failed],
    )
    page = "\n".join(long_protein_section(tmp_path))
    assert "| m | full | 34,350 | fp16 | 0.47 | 3.00 | H100 |" in page
    assert "| m | window | 34,350 | fp16 | out of memory | - | H100 |" in page
    checked = {"check_seconds": 2.98, "share_of_ten_minutes": 0.00497}
    found = {"greatest_residue_l2": 0.0018, "least_pooled_cosine": 0.99999968}
    write(tmp_path / "self-check-gpu.csv", [common | checked | found])
    assert "| m | fp16 | 3.0 | 0.5 % | 1.8e-3 | 0.9999996 | - | H100 |" in "\n".join(self_check_costs(tmp_path))
