"""Runs that must fail: the documented exit code, one line that says why, and nothing half-written."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
from pathlib import Path

import pytest
from launch import MODEL, PROJECT, launch

PROTEINS = PROJECT / "assets" / "proteins.fasta"


class Malicious:
    """A pickle that makes a file when it is loaded as code."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--input", PROTEINS, "--modle", "x"], 2, "unknown parameter --modle; did you mean --model?"),
        (["--input", PROTEINS, "--max_length", "many"], 2, "--max_length is 'many', but must be a whole number"),
        (["--input", PROTEINS, "--strict", "maybe"], 2, "--strict is 'maybe', but must be true or false"),
        (["--input", PROTEINS, "--precision", "fp7"], 2, "--precision is 'fp7', but must be one of fp16"),
        ([], 2, "no --input"),
        (["--input", "nowhere.fasta"], 66, "--input nowhere.fasta: no such file"),
        (["--input", "c$HOME.fasta"], 66, "Nextflow cannot stage a path with a dollar sign"),
    ],
)
def test_parameters(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "c$HOME.fasta").write_text(">a\nMKV\n")
    run = launch(tmp_path, *arguments)
    assert run.code == code, run.output
    assert message in run.last_lines
    assert run.published() == []


def test_an_outdir_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = launch(tmp_path, "--input", PROTEINS, "--model", MODEL, "--outdir", "file/results")
    # Nextflow 24.10 opens its trace before any pipeline code runs, and stops there by itself.
    assert (run.code, "cannot be written" in run.last_lines) == (74, True) or (
        run.code == 1 and "file/results: Not a directory" in run.last_lines
    ), run.output
    assert (tmp_path / "file").read_bytes() == b""


def nucleotide(folder: Path) -> list[str | Path]:
    (folder / "in.fasta").write_text(">gene\n" + "ATGGCGTACGTTAGC" * 20 + "\n")
    return ["--input", "in.fasta", "--model", MODEL]


def not_fasta(folder: Path) -> list[str | Path]:
    (folder / "in.fasta").write_text("id,sequence\na,MKV\n")
    return ["--input", "in.fasta", "--model", MODEL]


def truncated_gzip(folder: Path) -> list[str | Path]:
    (folder / "in.fasta.gz").write_bytes(gzip.compress(PROTEINS.read_bytes())[:9000])
    return ["--input", "in.fasta.gz", "--model", MODEL]


def strict(folder: Path) -> list[str | Path]:
    (folder / "in.fasta").write_text(">good\nMKV\n>bad\nMK7\n")
    return ["--input", "in.fasta", "--model", MODEL, "--strict"]


def unknown_model(folder: Path) -> list[str | Path]:
    return ["--input", PROTEINS, "--model", "esm2_t33_650M", "--model_cache", "cache"]


def corrupt_checkpoint(folder: Path) -> list[str | Path]:
    shutil.copytree(MODEL, folder / "model")
    weights = folder / "model" / "pytorch_model.bin"
    weights.write_bytes(weights.read_bytes()[:100_000])
    return ["--input", PROTEINS, "--model", "model"]


def malicious_pickle(folder: Path) -> list[str | Path]:
    (folder / "model.pt").write_bytes(pickle.dumps(Malicious(folder / "executed")))
    return ["--input", PROTEINS, "--model", "model.pt"]


@pytest.mark.parametrize(
    ("prepare", "code", "message"),
    [
        (nucleotide, 65, "split_fasta.py: error: {folder}/in.fasta"),
        (not_fasta, 65, "split_fasta.py: error: {folder}/in.fasta"),
        (truncated_gzip, 65, "split_fasta.py: error: {folder}/in.fasta.gz"),
        (strict, 65, "split_fasta.py: error: {folder}/in.fasta, line 3: record 'bad'"),
        (unknown_model, 69, "fetch_model.py: error: unknown model 'esm2_t33_650M'"),
        (corrupt_checkpoint, 69, "fetch_model.py: error: "),
        (malicious_pickle, 69, "fetch_model.py: error: "),
    ],
)
def test_a_task_that_refuses_its_input(prepare, code: int, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = launch(tmp_path, *prepare(tmp_path))
    assert run.code != 0
    assert f"exit status ({code})" in run.output, run.output
    assert message.format(folder=tmp_path) in run.last_lines
    assert run.published() == []
    assert not (tmp_path / "executed").exists()
