"""The whole runs on docs/performance.md and their pictures, from rows as bench_run.py writes them."""

from __future__ import annotations

import xml.etree.ElementTree
from pathlib import Path

import pytest
from benchmarks.environment import write_csv
from benchmarks.pages.render_docs import render
from benchmarks.peers.bench_run import WHOLE, moved, steps_of, write_proteins

from virnucpro.fasta import read_records

SPACE = "{http://www.w3.org/2000/svg}"


def rows(proteins: int, program: str, kernels: str, *seconds: float) -> list[dict[str, object]]:
    """Each repeat a start of one second and then computing."""
    common = {"proteins": proteins, "program": program, "kernels": kernels, "model": "650M", "commit": "c"}
    return [
        common | {"repeat": repeat, "step": step, "begin": begin, "end": end}
        for repeat, whole in enumerate(seconds)
        for step, begin, end in ((WHOLE, 0.0, whole), ("start", 0.0, 1.0), ("compute", 1.0, whole))
    ]


def write_runs(folder: Path) -> None:
    measured = rows(4450, "plain script", "-", 30.0, 36.0, 32.0) + rows(
        4450, "virnucpro-embed", "warm", 17.0, 16.0, 19.0
    )
    measured += rows(4450, "virnucpro embed", "warm", 8.0, 9.0, 8.5)
    write_csv(folder / "run-650M.csv", measured + rows(4450, "virnucpro-embed", "cold", 28.0, 29.0, 27.5))


def test_ratios_of_medians_stand_beside_their_goals(tmp_path: Path) -> None:
    write_runs(tmp_path)
    page = render(tmp_path)["docs/performance.md"].split("## Whole runs")[1].split("\n## ")[0]
    assert "| 4,450 proteins, plain script | 32.0 |  | 3 |" in page
    assert "| 4,450 proteins, virnucpro-embed, warm | 17.0 | 0.53 | 3 |" in page
    assert "| 4,450 proteins, virnucpro embed, warm | 8.5 | 0.27 | 3 |" in page
    assert "virnucpro embed, warm | ≤" not in page
    assert "| 4,450 proteins, virnucpro-embed, warm | ≤ 0.55 | 0.53 | met |" in page
    assert "| 4,450 proteins, virnucpro-embed, cold | ≤ 0.85 | 0.88 | **missed** |" in page
    assert "](../benchmarks/results/run-650M.svg)" in page
    assert "run-650M.csv" not in page.replace("(`run-650M.csv`)", "")


def test_the_waterfall_draws_the_median_runs_steps_end_to_end(tmp_path: Path) -> None:
    write_runs(tmp_path)
    root = xml.etree.ElementTree.fromstring(render(tmp_path)["benchmarks/results/run-650M.svg"])
    _, *bars = root.findall(f"{SPACE}rect")
    assert len(bars) == 2 * 4
    spans = [(float(bar.attrib["x"]), float(bar.attrib["width"])) for bar in bars]
    for (begin, width), (following, rest) in zip(spans[::2], spans[1::2], strict=True):
        assert begin + width == pytest.approx(following, abs=0.2)
        assert following + rest == pytest.approx(spans[0][0] + 540, abs=0.2)
    assert spans[0][1] == pytest.approx(540 / 32, abs=0.1)


def test_nothing_is_told_where_no_run_was_measured(tmp_path: Path) -> None:
    assert "Whole runs" not in render(tmp_path)["docs/performance.md"]


def test_proteins_are_distinct_however_many_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "in.fasta").write_text(">a\nMKVLAT\n>b\nMKVW\n")
    write_proteins(tmp_path / "in.fasta", 5, tmp_path / "out.fasta")
    written = [record.sequence for record in read_records(tmp_path / "out.fasta")]
    assert written == ["MKVLAT", "MKVW", "KVLATM", "KVWM", "VLATMK"]
    write_proteins(tmp_path / "in.fasta", 1, tmp_path / "one.fasta")
    assert [record.sequence for record in read_records(tmp_path / "one.fasta")] == ["MKVLAT"]


def test_the_steps_of_a_run_cover_it(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "pipeline_info").mkdir()
    (tmp_path / "metrics").mkdir()
    trace = ["name\tstatus\tsubmit\tstart\tcomplete", "SPLIT_FASTA (x)\tCOMPLETED\t1\t103000\t104000"]
    trace += [
        "EMBED_SHARD (shard-00000)\tCOMPLETED\t1\t104000\t110000",
        "MERGE_EMBEDDINGS (s)\tCOMPLETED\t1\t110000\t111000",
    ]
    (tmp_path / "pipeline_info" / "trace.txt").write_text("\n".join(trace) + "\n")
    batches = pa.table({"start": [106.0, 107.0], "end": [107.0, 109.5]})
    pq.write_table(batches, tmp_path / "metrics" / "batches.parquet")
    steps = moved(list(steps_of(tmp_path, 100.0, 112.0)), 100.0)
    assert [(step.name, step.begin, step.end) for step in steps] == [
        ("Nextflow starts", 0, 3),
        ("SPLIT_FASTA", 3, 4),
        ("EMBED_SHARD: start-up", 4, 6),
        ("EMBED_SHARD: compute", 6, 9.5),
        ("EMBED_SHARD: end", 9.5, 10),
        ("MERGE_EMBEDDINGS", 10, 11),
        ("Nextflow ends", 11, 12),
    ]
