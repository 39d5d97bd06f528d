"""The engine that has Kubernetes in it, inputs, and what the pods must compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kube_run import record
from runtimes.pipeline_run import PROJECT, SHARDS, Run, run_pipeline, small_fasta, small_model

#: Later ones have the executor in a plugin.
ENGINE = PROJECT / ".nextflow-dist" / "24.10.0" / "nextflow"
#: Cuts the input of `inputs` into six shards.
RESIDUES = 240


@pytest.fixture(scope="session", autouse=True)
def engine() -> Iterator[None]:
    if not ENGINE.exists():
        pytest.skip("no Nextflow 24.10.0; `make test-k8s` installs it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTFLOW", str(ENGINE))
        yield


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model and a FASTA file."""
    directory = tmp_path_factory.mktemp("inputs")
    small_model(directory / "model.pt")
    small_fasta(directory / "few.fasta", records=4 * SHARDS, residues=60)
    return directory


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Run:
    """The same input on this machine, in one shard."""
    run = run_pipeline(tmp_path_factory.mktemp("local"), "--gpus", "0", "--report", "false", inputs=inputs)
    assert run.code == 0, run.output
    return run


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Path:
    """What EMBED_SHARD makes of each of six shards."""
    return record(inputs, RESIDUES, tmp_path_factory.mktemp("recordings") / "six")
