"""Run the whole pipeline on a small input, on whichever engine, and read what it left."""

from __future__ import annotations

import csv
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from virnucpro import __version__

PROJECT = Path(__file__).parents[2]
SHARDS = 6
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
#: What the profiles ask a container engine for.
TOOLS_IMAGE, EMBED_IMAGE = (f"virnucpro-{name}:{__version__}" for name in ("tools", "embed"))


def nextflow_command() -> list[str]:
    """The Nextflow to test with: $NEXTFLOW, the one in the PATH, or one that the Makefile installed."""
    named = os.environ.get("NEXTFLOW") or shutil.which("nextflow")
    if named:
        return shlex.split(named)
    installed = sorted((PROJECT / ".nextflow-dist").glob("*/nextflow"))
    if not installed:
        pytest.fail("no Nextflow: run `make demo` once, or name one in NEXTFLOW")
    return [str(installed[-1])]


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, exit code and everything that Nextflow printed."""

    directory: Path
    code: int
    output: str

    def vectors(self) -> dict[str, list[float]]:
        """Every record's vector. Parquet keeps float32 exactly, so equal means bit-identical."""
        table = pq.read_table(self.directory / "results" / "embeddings", columns=["id", "embedding"])
        return dict(zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True))

    def trace(self) -> list[dict[str, str]]:
        """Rows of Nextflow's trace, one per try of a task."""
        with (self.directory / "results" / "pipeline_info" / "trace.txt").open() as file:
            return list(csv.DictReader(file, delimiter="\t"))

    def tries(self, shard: str) -> list[tuple[str, str]]:
        """(status, exit code) of every try of a shard, in the order of submission."""
        rows = [row for row in self.trace() if f"({shard}," in row["name"]]
        return [(row["status"], row["exit"]) for row in sorted(rows, key=lambda row: row["submit"])]


def small_model(path: Path) -> Path:
    """Random weights of a small ESM-2 in fair-esm's checkpoint layout."""
    import torch
    from esm import ESM2
    from esm.data import Alphabet

    torch.manual_seed(6)
    model = ESM2(2, 32, 2, alphabet=Alphabet.from_architecture("ESM-1b"))
    config = Namespace(encoder_layers=2, encoder_embed_dim=32, encoder_attention_heads=2, token_dropout=True)
    state = {f"encoder.sentence_encoder.{key}": value for key, value in model.state_dict().items()}
    state = {key.replace("sentence_encoder.lm_head", "lm_head"): value for key, value in state.items()}
    torch.save({"cfg": {"model": config}, "model": state}, path)
    return path


def small_fasta(path: Path, records: int = 24, residues: int = 60) -> Path:
    """Random proteins, all of one length, so that shards hold equally many."""
    rng = random.Random(6)
    path.write_text("".join(f">p{index}\n{''.join(rng.choices(RESIDUES, k=residues))}\n" for index in range(records)))
    return path


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that everybody may enter; every pytest closes its own to others.

    Not under /tmp: with a clone that is, Nextflow mounts /tmp itself, where a read-only container has its own.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def read_only_containers(folder: Path) -> Path:
    """A configuration of containers that can write to /tmp and nowhere else."""
    path = folder / "read_only.config"
    path.write_text("process.containerOptions = '--shm-size 4g --read-only --tmpfs /tmp'\n")
    return path


def copy_project(folder: Path) -> Path:
    """A copy of what the pipeline runs from."""
    for name in ("bin", "conf", "modules"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("main.nf", "nextflow.config", "nextflow_schema.json"):
        shutil.copy2(PROJECT / name, folder / name)
    return folder


def pipeline_command(
    *arguments: str,
    inputs: Path,
    configs: tuple[Path, ...] = (),
    python_env: str | None = sys.prefix,
    project: Path = PROJECT,
) -> list[str]:
    """`nextflow run` of main.nf on ``inputs``/few.fasta and model.pt.

    Args:
        arguments: further options of `nextflow run`.
        inputs: folder with few.fasta and model.pt.
        configs: further config files.
        python_env: virtual environment for the tasks, or None inside containers.
        project: where the pipeline lies.
    """
    command = [*nextflow_command()]
    for config in configs:
        command += ["-c", str(config)]
    command += ["run", str(project / "main.nf"), "-ansi-log", "false", *arguments]
    command += ["--input", str(inputs / "few.fasta"), "--model", str(inputs / "model.pt")]
    return command if python_env is None else [*command, "--python_env", python_env]


def pipeline_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment for Nextflow: nothing is downloaded at its start."""
    return {"NXF_OFFLINE": "true", "NXF_DISABLE_CHECK_LATEST": "true", **os.environ, **(extra or {})}


def run_pipeline(
    directory: Path,
    *arguments: str,
    inputs: Path,
    environment: Mapping[str, str] | None = None,
    configs: tuple[Path, ...] = (),
    python_env: str | None = sys.prefix,
    project: Path = PROJECT,
    prefix: tuple[str, ...] = (),
    seconds: float = 300,
) -> Run:
    """Run the pipeline in ``directory`` to its end.

    Args:
        directory: launch folder; work and results are inside.
        arguments, inputs, configs, python_env, project: as for pipeline_command.
        environment: variables beside this process's own.
        prefix: a command that starts Nextflow, as another user for instance.
        seconds: after these, Nextflow is told to stop, and the test fails.
    """
    directory.mkdir(parents=True, exist_ok=True)
    started = pipeline_command(*arguments, inputs=inputs, configs=configs, python_env=python_env, project=project)
    command = [*prefix, *started]
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=pipeline_environment(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        pytest.fail(f"the run took more than {seconds:.0f} s:\n{output[-4000:]}")
    return Run(directory, process.returncode, output)
