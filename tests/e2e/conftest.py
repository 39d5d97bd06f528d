"""The model of runs with a fault, and such a run without one."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_runs import options
from launch import Launch, launch


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ESM-2 as fair-esm saves it."""
    from pipeline.models import save_fair_esm, small_esm2

    path = tmp_path_factory.mktemp("model") / "small.pt"
    save_fair_esm(small_esm2(), path)
    return path


@pytest.fixture(scope="session")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """The run without a fault."""
    run = launch(tmp_path_factory.mktemp("whole"), *options(model), "--report", "false")
    assert run.code == 0, run.output
    return run
