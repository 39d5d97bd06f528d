"""A one-node Slurm cluster for a test, and why a machine cannot have one."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pipeline_run import PROJECT

SLURM = PROJECT / "tests" / "slurm"
GPUS = 3
CGROUPS = Path("/sys/fs/cgroup")


def why_no_cluster() -> str | None:
    """What this machine lacks for a cluster with pretend GPUs, in words."""
    if os.geteuid() != 0:
        return "a Slurm cluster of our own takes root"
    if shutil.which("slurmctld") is None:
        return "Slurm is not installed; `make test-slurm` installs it where apt-get can"
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.mknod(Path(folder) / "device", stat.S_IFCHR, os.makedev(195, 0))
        except OSError as error:
            return f"no pretend devices can be made here (mknod: {error.strerror})"
    return None


def why_no_cgroups() -> str | None:
    """What keeps Slurm from confining a job by cgroups (v1) here, in words."""
    for controller, file, value in (
        ("freezer", "freezer.state", "THAWED"),
        ("memory", "memory.limit_in_bytes", "1000000000"),
        ("devices", "devices.deny", "c 195:* rwm"),
    ):
        probe = CGROUPS / controller / f"virnucpro-probe-{os.getpid()}"
        try:
            probe.mkdir()
        except OSError as error:
            return f"no cgroup of version 1 can be made under {probe.parent} ({error.strerror})"
        try:
            (probe / file).write_text(value)
        except OSError as error:
            return f"{CGROUPS / controller / file} cannot be set ({error.strerror})"
        finally:
            probe.rmdir()
    return None


NO_CLUSTER = why_no_cluster()
needs_slurm = pytest.mark.skipif(NO_CLUSTER is not None, reason=str(NO_CLUSTER))


@contextmanager
def cluster(directory: Path, confinement: str, stand_ins: Path) -> Iterator[dict[str, str]]:
    """A running cluster; yields the environment in which sbatch finds it, and tasks the commands in ``stand_ins``.

    Skips the test where ``confinement`` is "constrained" and the machine permits no cgroups.
    """
    if confinement == "constrained" and (reason := why_no_cgroups()):
        pytest.skip(reason)
    place = directory / "cluster"
    try:
        subprocess.run([SLURM / "cluster.sh", "start", place, str(GPUS), confinement], check=True, timeout=60)
        yield {
            "SLURM_CONF": str(place / "slurm.conf"),
            "PATH": f"{stand_ins}:{os.environ['PATH']}",
            "VIRNUCPRO_TEST_DIRECTORY": str(directory),
            "VIRNUCPRO_TEST_GPUS": str(GPUS),
        }
    finally:
        subprocess.run([SLURM / "cluster.sh", "stop", place], check=True, timeout=60)
    deadline = time.monotonic() + 10
    while left := processes_of(place):
        assert time.monotonic() < deadline, f"still running after the test: {left}"
        time.sleep(0.2)


def processes_of(place: Path) -> list[str]:
    """Names of the running processes of the cluster whose configuration lies in ``place``: daemons and jobs."""
    wanted = f"SLURM_CONF={place / 'slurm.conf'}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "comm").read_text().strip())
        except OSError:
            continue  # gone in the meantime
    return found


def devices_of_containers(run: Path) -> list[dict[str, str]]:
    """What tests/slurm/engines noted of each container with a GPU: ``job``, ``visible``, ``container`` and ``id``."""
    notes = sorted((run / "work").glob("*/*/.container-device"))
    return [dict(fact.split("=", 1) for fact in note.read_text().split()) for note in notes]
