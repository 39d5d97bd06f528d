"""Results to export, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished_results import make_results


@pytest.fixture(scope="package")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mean vectors of the last layer, with residues."""
    return make_results(tmp_path_factory.mktemp("plain"), "--per-residue")


@pytest.fixture(scope="package")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float16 vectors of two poolings and two layers, with residues."""
    options = ("--layers=0,-1", "--pooling=mean,bos", "--embedding-dtype=float16", "--per-residue")
    return make_results(tmp_path_factory.mktemp("several"), *options)
