"""Runs that must fail: the documented exit code, one line that says why, and nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from descriptions import describe
from launch import MODEL, PROJECT, copy_project, launch, launch_environment, once

Prepare = Callable[[Path], list[str | Path]]
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
        once(["--input", PROTEINS, "--work-dir", "x"], 2, "Nextflow's own and has one dash: -work-dir"),
        ([], 2, "no --input"),
        (["--input", PROTEINS, "--input=b.fasta"], 2, "--input is given more than once, of which Nextflow"),
        once(["--input", "it's", "--input=c d.fasta"], 2, "--input is given more than once, of which Nextflow"),
        once(["--input", "it's --input=b.fasta"], 66, "--input it's --input=b.fasta: no such file"),
        (
            ["--input", PROTEINS, "b.fasta", "c d.fasta"],
            2,
            "words that belong to no parameter: 'b.fasta' and 1 more; write",
        ),
        once(["--input"], 2, "--input has no value; give one"),
        once(["--input", PROTEINS, "--gpus", ""], 2, "--gpus has no value; give one"),
        once(["--input", PROTEINS, "--model", "none/model.pt"], 66, "--model none/model.pt: no such file or folder"),
        (["--input", PROTEINS, "--model", MODEL, "--python_env", "no"], 66, "--python_env no: no bin/activate in it"),
    ],
)
def test_parameters(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    run = launch(tmp_path, *arguments)
    assert run.code == code, run.output
    assert message in run.last_lines
    assert run.published() == []


def test_what_does_not_go_together_is_told_before_any_task(tmp_path: Path) -> None:
    """Of all that does not tests/e2e/test_suggestions.py asks."""
    run = launch(tmp_path, "--input", PROTEINS, "--translate=genes", "--chunk=300")
    assert run.code == 2, run.output
    assert run.output.splitlines()[-1].startswith("virnucpro-embed: error: --chunk and --genetic_code are of --transl")
    assert not any((tmp_path / "work").glob("*/*"))


def test_a_file_of_parameters(tmp_path: Path) -> None:
    """Whose values Nextflow's configuration has had before they are looked at."""
    (tmp_path / "given.json").write_text(json.dumps({"outdir": None, "triton_cache": {"a": 1}}))
    run = launch(tmp_path, "--input", PROTEINS, "-params-file", "given.json")
    assert run.code == 2, run.output
    assert "--outdir is empty; leave it out for results" in run.last_lines
    assert not (tmp_path / "results").exists() or run.published() == []
    assert not (tmp_path / "null").exists()


def test_a_preview_starts_nothing_and_says_so(tmp_path: Path) -> None:
    run = launch(tmp_path, "--input", PROTEINS, "--model", MODEL, "-preview")
    assert run.code == 0, run.output
    assert run.last_lines.rstrip().endswith("A preview: the parameters hold, and no task was started")
    assert "No results" not in run.output
    assert not (tmp_path / "results").exists() or run.published() == []


@pytest.mark.one_engine
@pytest.mark.faults("an outdir that cannot be made", "`nextflow run`", "74 before anything is computed")
@pytest.mark.parametrize("outdir", ["file", "file/results"])
def test_an_outdir_that_cannot_be_made(outdir: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = launch(tmp_path, "--input", PROTEINS, "--model", MODEL, "--outdir", outdir)
    assert run.code == 74, run.output
    assert f"--outdir {outdir} cannot be written" in run.last_lines
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.one_engine
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_outdir_without_the_right_to_write(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    run = launch(tmp_path, "--input", PROTEINS, "--model", MODEL, "--outdir", "closed/results")
    assert run.code == 74, run.output
    assert "--outdir closed/results cannot be written" in run.last_lines


def nucleotide(folder: Path) -> list[str | Path]:
    (folder / "in.fasta").write_text(">gene\n" + "ATGGCGTACGTTAGC" * 20 + "\n")
    return ["--input", "in.fasta", "--model", MODEL]


def not_fasta(folder: Path) -> list[str | Path]:
    (folder / "in.fasta").write_text("id,sequence\na,MKV\n")
    return ["--input", "in.fasta", "--model", MODEL]


def truncated_gzip(folder: Path) -> list[str | Path]:
    (folder / "in.fasta.gz").write_bytes(gzip.compress(PROTEINS.read_bytes())[:9000])
    return ["--input", "in.fasta.gz", "--model", MODEL]


def archive(folder: Path) -> list[str | Path]:
    with tarfile.open(folder / "in.fasta", "w:gz") as file:
        file.add(PROTEINS, "proteins.fasta")
    return ["--input", f"{PROTEINS},in.fasta", "--model", MODEL]


def strict(folder: Path) -> list[str | Path]:
    (folder / "in.fasta").write_text(">good\nMKV\n>bad\nMK7\n")
    return ["--input", "in.fasta", "--model", MODEL, "--strict"]


def unknown_model(folder: Path) -> list[str | Path]:
    return ["--input", PROTEINS, "--model", "esm2_t33_650M", "--model_cache", "cache"]


def model_out_of_reach(folder: Path) -> list[str | Path]:
    return ["--input", PROTEINS, "--model", "esm2_t6_8M_UR50D", "--model_cache", "cache"]


def corrupt_checkpoint(folder: Path) -> list[str | Path]:
    shutil.copytree(MODEL, folder / "model")
    weights = folder / "model" / "pytorch_model.bin"
    weights.write_bytes(weights.read_bytes()[:100_000])
    return ["--input", PROTEINS, "--model", "model"]


def malicious_pickle(folder: Path) -> list[str | Path]:
    (folder / "model.pt").write_bytes(pickle.dumps(Malicious(folder / "executed")))
    return ["--input", PROTEINS, "--model", "model.pt"]


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("prepare", "code", "message"),
    [
        (nucleotide, 65, "split_fasta.py: error: {folder}/in.fasta"),
        (not_fasta, 65, "split_fasta.py: error: {folder}/in.fasta, line 1: a table with commas between its columns"),
        (truncated_gzip, 65, "split_fasta.py: error: {folder}/in.fasta.gz"),
        (archive, 65, "split_fasta.py: error: {folder}/in.fasta: a tar archive inside gzip, not FASTA; unpack it"),
        (unknown_model, 69, "fetch_model.py: error: unknown model 'esm2_t33_650M'"),
        (model_out_of_reach, 69, "fetch_model.py: error: esm2_t6_8M_UR50D cannot be had"),
        (malicious_pickle, 69, "fetch_model.py: error: "),
    ],
)
def test_a_program_that_refuses_its_input(prepare: Prepare, code: int, message: str, tmp_path: Path) -> None:
    """As its task starts it; the pipeline makes of each what it makes of those below."""
    words = iter(map(str, prepare(tmp_path)))
    given = dict(zip(words, words, strict=True))
    command = ["fetch_model.py", "--model", given["--model"], "--outdir", "out"]
    if message.startswith("split_fasta.py"):
        describe().write(tmp_path / "model.json")
        files = [str(tmp_path / name) for name in given["--input"].split(",")]
        command = ["split_fasta.py", "--model-json", "model.json", "--outdir", "out", *files]
    program = [sys.executable, str(PROJECT / "bin" / command[0]), *command[1:]]
    environment = launch_environment()
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith(message.format(folder=tmp_path))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("prepare", "code", "message"),
    [
        (strict, 65, "split_fasta.py: error: {folder}/in.fasta, line 3: record 'bad'"),
        once(corrupt_checkpoint, 69, "fetch_model.py: error: "),
    ],
)
def test_a_task_that_refuses_its_input(prepare: Prepare, code: int, message: str, tmp_path: Path) -> None:
    run = launch(tmp_path, *prepare(tmp_path))
    expected = message.format(folder=tmp_path)
    assert run.code == code, run.output
    assert f"exit status ({code})" in run.output and "Re-submitted" not in run.output
    assert expected in run.last_lines
    assert f"No results: {expected}" in run.last_lines
    assert run.published() == []
    assert run.reports() == ["dag.html", "report.html", "timeline.html", "trace.txt"]
    assert not (tmp_path / "executed").exists()


@pytest.mark.one_engine
@pytest.mark.faults("a GPU that is not there", "`nextflow run`", "2, in a line")
@pytest.mark.skipif(bool(list(Path("/dev").glob("nvidia*"))), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    run = launch(tmp_path, "-profile", "test", "--model", MODEL, "--report", "false", "--gpus", "1")
    assert run.code == 2, run.output
    (line,) = [line for line in run.last_lines.splitlines() if line.startswith("No results: ")]
    assert "run with --gpus 0" in line
    assert run.published() == []


@pytest.mark.faults(
    "a task that fails each time", "`nextflow run`", "tried four times, then its code; nothing published"
)
def test_a_task_that_never_succeeds_is_tried_four_times(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    (project / "bin" / "embed_shard.py").write_text("#!/bin/sh\necho 'embed_shard.py: error: no memory' >&2; exit 75\n")
    (tmp_path / "in.fasta").write_text(">a\nMKV\n")
    run = launch(tmp_path, "--input", "in.fasta", "--model", MODEL, project=project)
    assert run.code == 75, run.output
    assert "No results: embed_shard.py: error: no memory" in run.last_lines
    assert run.output.count("Re-submitted process > EMBED_SHARD") == 3
    assert run.published() == []
