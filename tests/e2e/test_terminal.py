"""What a user sees of a run: nothing that is not needed, and the last word ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch import MODEL, PROJECT, Launch, launch, once
from terminal import launch_on_terminal

NUCLEOTIDE = ">gene\n" + "ATGGCGTACGTTAGC" * 20 + "\n"
SHORT = ("--model", MODEL, "--report", "false")


def seen(run: Launch) -> list[str]:
    """The lines that are not blank, and not what a newer virtual machine says of Nextflow's own libraries."""
    return [line.rstrip() for line in run.output.splitlines() if line.strip() and not line.startswith("WARNING: ")]


@pytest.mark.parametrize("on", [once(launch), launch_on_terminal], ids=["log", "terminal"])
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


@pytest.mark.parametrize("on", [once(launch), launch_on_terminal], ids=["log", "terminal"])
def test_the_last_line_of_a_refusal_is_ours(on, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = on(tmp_path, "--input", "none.fasta", *SHORT)
    assert run.code == 66, run.output
    assert seen(run)[-1] == "virnucpro-embed: error: --input none.fasta: no such file; check the path"
    assert run.output.count("no such file") == 1


def test_the_last_line_of_a_run_is_where_its_results_are(tmp_path: Path) -> None:
    run = launch_on_terminal(tmp_path, "--input", PROJECT / "tests" / "fixtures" / "few.fasta", *SHORT)
    assert run.code == 0, run.output
    assert seen(run)[-1] == f"Results are in {tmp_path}/results/embeddings"


def test_an_interrupted_run_says_so_last(tmp_path: Path) -> None:
    few = PROJECT / "tests" / "fixtures" / "few.fasta"
    run = launch_on_terminal(tmp_path, "--input", few, *SHORT, interrupt_at="distinct sequences to embed")
    assert run.code not in (0, None)
    assert seen(run)[-1].startswith("No results: "), run.output
