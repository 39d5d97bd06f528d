"""What a user sees of a run: nothing that is not needed, and the last word ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch import MODEL, PROJECT, Launch, launch
from terminal import launch_on_terminal

NUCLEOTIDE = ">gene\n" + "ATGGCGTACGTTAGC" * 20 + "\n"
SHORT = ("--model", MODEL, "--report", "false")


def seen(run: Launch) -> list[str]:
    return [line.rstrip() for line in run.output.splitlines() if line.strip()]


@pytest.mark.parametrize("on", [launch, launch_on_terminal], ids=["log", "terminal"])
def test_the_last_line_of_a_failed_run_is_ours(on, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in.fasta").write_text(NUCLEOTIDE)
    run = on(tmp_path, "--input", "in.fasta", *SHORT)
    assert run.code == 65, run.output
    assert seen(run)[-1].startswith(f"No results: split_fasta.py: error: {tmp_path}/in.fasta, line 1: nucleotide"), (
        run.output
    )
    assert run.output.count("No results: ") == 1
    assert "Command executed" in run.output
    assert "trace.txt" in run.reports()


def test_the_last_line_of_a_run_is_where_its_results_are(tmp_path: Path) -> None:
    run = launch_on_terminal(tmp_path, "--input", PROJECT / "tests" / "fixtures" / "few.fasta", *SHORT)
    assert run.code == 0, run.output
    assert seen(run)[-1] == f"Results are in {tmp_path}/results/embeddings"
    assert "WARN" not in run.output


def test_an_interrupted_run_says_so_last(tmp_path: Path) -> None:
    few = PROJECT / "tests" / "fixtures" / "few.fasta"
    run = launch_on_terminal(tmp_path, "--input", few, *SHORT, interrupt_at="distinct sequences to embed")
    assert run.code not in (0, None)
    assert seen(run)[-1].startswith("No results: "), run.output
