"""A one-node Slurm cluster for a test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pipeline_run import PROJECT

SLURM = PROJECT / "tests" / "slurm"
GPUS = 3

needs_slurm = pytest.mark.skipif(
    shutil.which("slurmctld") is None or os.geteuid() != 0, reason="needs Slurm installed, and root"
)


@contextmanager
def cluster(directory: Path, confinement: str, stand_ins: Path) -> Iterator[dict[str, str]]:
    """A running cluster; yields the environment in which sbatch finds it, and tasks the commands in ``stand_ins``."""
    place = directory / "cluster"
    subprocess.run([SLURM / "cluster.sh", "start", place, str(GPUS), confinement], check=True, timeout=60)
    try:
        yield {
            "SLURM_CONF": str(place / "slurm.conf"),
            "PATH": f"{stand_ins}:{os.environ['PATH']}",
            "VIRNUCPRO_TEST_DIRECTORY": str(directory),
            "VIRNUCPRO_TEST_GPUS": str(GPUS),
        }
    finally:
        subprocess.run([SLURM / "cluster.sh", "stop", place], check=True, timeout=60)
