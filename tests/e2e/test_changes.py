"""Through Nextflow: what was changed or skipped is said last, records without id have their vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from launch import MODEL, launch

pytestmark = pytest.mark.one_engine

TEXT = "# aligned by hand\n>a\nMKVL.AAG.\n;c\n>  b two\nMKVLAAG\n> \nMKT-LLVJ\n>\nMKTLLVWW\n"


@pytest.mark.parametrize(
    ("gaps", "columns", "closing"),
    [
        (
            "remove",
            {"unknown_residues": [0, 0, 1, 0], "gaps_removed": [1, 0, 1, 0]},
            ["4 records, none rejected", "1 residue without a token read as X", "2 gap characters removed"],
        ),
        (
            "reject",
            {"unknown_residues": [None, 0, None, 0], "gaps_removed": [None, 0, None, 0]},
            ["4 records, 2 rejected (reasons in {results}/rejected.tsv)"],
        ),
    ],
)
def test_changes_are_said_last(
    tmp_path: Path, gaps: str, columns: dict[str, list[int | None]], closing: list[str]
) -> None:
    (tmp_path / "input.fasta").write_text(TEXT)
    run = launch(tmp_path, "--input", "input.fasta", "--model", MODEL, "--gaps", gaps)
    assert run.code == 0, run.output
    lines = run.last_lines.splitlines()
    expected = [line.format(results=run.results) for line in [*closing, "2 comment lines skipped"]]
    start = lines.index(expected[0])
    assert lines[start : start + len(expected)] == expected

    ledger = pq.read_table(run.results / "manifest.parquet")
    assert ledger["id"].to_pylist() == ["a", "b", "", ""]
    assert {name: ledger[name].to_pylist() for name in columns} == columns
    status = {"remove": ["embedded", "duplicate", "embedded", "embedded"]}
    assert ledger["status"].to_pylist() == status.get(gaps, ["rejected", "embedded", "rejected", "embedded"])
    rows = pq.read_table(run.results / "embeddings")
    kept = [i for i, reason in enumerate(ledger["reason"].to_pylist()) if reason is None]
    assert (rows["ordinal"].to_pylist(), rows["id"].to_pylist()) == (kept, [["a", "b", "", ""][i] for i in kept])
    assert np.isfinite(np.array(rows["embedding"].to_pylist())).all()
    summary = json.loads((run.results / "metrics" / "run_summary.json").read_text())
    for name, values in columns.items():
        assert summary[name] == sum(value or 0 for value in values)
    assert summary["comment_lines"] == 2
    assert (run.results / "report" / "multiqc_report.html").stat().st_size > 100_000


def test_long_records_are_told_of(tmp_path: Path) -> None:
    letters = "MKTLLVWAGHERSDPNIYQF" * 80
    sequences = [letters[:1022], letters[:1023], letters[:1501], "MK7", letters[:1023]]
    (tmp_path / "input.fasta").write_text("".join(f">{i}\n{each}\n" for i, each in enumerate(sequences)))
    options = ("--layers=0", "--max_length", "1500", "--report", "false")
    run = launch(tmp_path, "--input", "input.fasta", "--model", MODEL, *options)
    assert run.code == 0, run.output
    lines = run.last_lines.splitlines()
    start = lines.index("1 record cut to the residues that --max_length allows")
    assert lines[start - 1].startswith("5 records, 1 rejected")
    assert lines[start + 1] == "3 records beyond the length that models are trained on"

    rows, ledger = pq.read_table(run.results / "embeddings"), pq.read_table(run.results / "manifest.parquet")
    assert rows["truncated"].to_pylist() == [False, False, True, False]
    assert rows["beyond_trained_length"].to_pylist() == [False, True, True, True]
    assert not rows.schema.field("beyond_trained_length").nullable
    assert ledger["beyond_trained_length"].to_pylist() == [False, True, True, None, True]
    summary = json.loads((run.results / "metrics" / "run_summary.json").read_text())
    assert (summary["truncated"], summary["beyond_trained_length"]) == (1, 3)


def test_a_run_in_which_nothing_is_left_to_embed(tmp_path: Path) -> None:
    (tmp_path / "input.fasta").write_text(">a\nMKV1\n>b\n")
    run = launch(tmp_path, "--input", "input.fasta", "--model", MODEL)
    assert run.code == 65, run.output
    assert "all 2 records are rejected, so there is nothing to embed: " in run.last_lines.splitlines()[-1]
    assert run.published() == []
