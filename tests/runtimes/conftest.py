"""Inputs, and the run on this machine that every other engine is compared with."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_run import SHARDS, Run, run_pipeline, small_fasta, small_model


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slurm: starts a one-node Slurm cluster; needs root")
    config.addinivalue_line("markers", "docker: needs a Docker daemon and the images of containers/build.sh")
    config.addinivalue_line("markers", "apptainer: needs Apptainer and the images of `containers/build.sh sif`")


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model and a FASTA file that `--shard_residues 240` cuts into six equal shards."""
    directory = tmp_path_factory.mktemp("inputs")
    small_model(directory / "model.pt")
    small_fasta(directory / "few.fasta", records=4 * SHARDS, residues=60)
    return directory


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Run:
    """The same input on this machine, in one shard."""
    run = run_pipeline(tmp_path_factory.mktemp("local"), "--gpus", "0", inputs=inputs)
    assert run.code == 0, run.output
    return run


@pytest.fixture
def stub_inputs(tmp_path: Path) -> Path:
    (tmp_path / "model.pt").write_bytes(b"")
    (tmp_path / "few.fasta").write_text(">p\nMKV\n")
    return tmp_path
