"""What runs with a fault are held to: the same run without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from launch import PROJECT, Launch

#: The folder that puts faults into tasks, for PYTHONPATH.
INJECTION = PROJECT / "tests" / "faults"
_FEW = PROJECT / "tests" / "fixtures" / "few.fasta"


def options(model: Path) -> list[str]:
    """A run of a few sequences."""
    return ["--input", str(_FEW), "--model", str(model), "--shard_residues", "3000"]


def vectors(run: Launch) -> tuple[list[str], np.ndarray]:
    rows = pq.read_table(run.results / "embeddings").sort_by("ordinal")
    return rows["id"].to_pylist(), np.array(rows["embedding"].to_pylist())


def assert_whole(run: Launch, whole: Launch) -> None:
    """All records with the vectors that they have without a fault, as ``verify`` proves."""
    assert run.code == 0, run.output
    command = [sys.executable, str(PROJECT / "bin" / "verify.py"), str(run.results)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (ids, found), (known, expected) = vectors(run), vectors(whole)
    assert ids == known
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
