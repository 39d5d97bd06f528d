"""The pipeline on a real one-node Slurm with pretend GPUs: devices, lost jobs, resume. `make test-slurm` runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pipeline_run import SHARDS, Run, run_pipeline
from slurm_cluster import SLURM, cluster, needs_slurm
from warned import warnings

pytestmark = [pytest.mark.slurm, needs_slurm]

FAULTS = SLURM / "faults"
KILLED, TIME_LIMIT, LOST, CANCELLED = "137", "140", "-", "143"


def on_slurm(directory: Path, inputs: Path, environment: dict[str, str], *arguments: str) -> Run:
    return run_pipeline(
        directory / "run",
        *("-profile", "slurm", "--gpus", "0", "--shard_residues", "240", *arguments),
        inputs=inputs,
        environment=environment,
        configs=(SLURM / "cluster.config",),
    )


def devices(directory: Path) -> list[dict[str, str]]:
    """What each started task saw: its job, and the devices named, visible and allowed."""
    rows = []
    for line in (directory / "devices").read_text().splitlines():
        job, *facts = line.split()
        rows.append({"job": job} | dict(fact.split("=", 1) for fact in facts))
    return rows


@pytest.mark.parametrize("confinement", ["constrained", "open"])
def test_lost_jobs_go_again_and_no_device_is_shared(confinement: str, tmp_path: Path, inputs: Path, local: Run) -> None:
    with cluster(tmp_path, confinement, FAULTS) as environment:
        environment["VIRNUCPRO_TEST_FAULTS"] = confinement
        run = on_slurm(tmp_path, inputs, environment)
        assert run.code == 0, run.output
        assert run.tries("shard-00000") == [("FAILED", CANCELLED), ("COMPLETED", "0")]
        # The limit's signal ends what runs then: the task, or Nextflow's own script before or after it, which says 1 or
        # nothing. Each goes again.
        (status, ended), *then = run.tries("shard-00001")
        assert (status, then) == ("FAILED", [("COMPLETED", "0")]) and ended in (TIME_LIMIT, "1", LOST)
        assert run.tries("shard-00002") == [("FAILED", LOST), ("COMPLETED", "0")]
        assert run.tries("shard-00003") == [("FAILED", KILLED), ("COMPLETED", "0")]
        assert run.tries("shard-00004") == [("FAILED", CANCELLED), ("COMPLETED", "0")]
        assert run.tries("shard-00005") == [("COMPLETED", "0")]
        assert run.vectors() == local.vectors()

        del environment["VIRNUCPRO_TEST_FAULTS"]
        tried = len(devices(tmp_path))
        again = on_slurm(tmp_path, inputs, environment, "-resume")
        assert again.code == 0, again.output
        assert {row["status"] for row in again.trace()} == {"CACHED"}
        assert len(devices(tmp_path)) == tried
        assert warnings(again.output) == []

    assert not (tmp_path / "violations").exists(), (tmp_path / "violations").read_text()
    seen = devices(tmp_path)
    assert len({row["device"] for row in seen}) > 1
    if confinement == "constrained":
        assert all(row["allowed"] == row["device"] != "" for row in seen), seen
        # Inside its cgroup every job counts its own device from 0: CUDA_VISIBLE_DEVICES does not tell them apart.
        assert {row["visible"] for row in seen} == {"0"}
    else:
        assert all(row["visible"] == row["device"] != "" for row in seen), seen
    assert_gpus_are_asked_for(run)


def test_devices_are_distinct_without_cgroups_and_in_job_arrays(tmp_path: Path, inputs: Path, local: Run) -> None:
    with cluster(tmp_path, "open", FAULTS) as environment:
        run = on_slurm(tmp_path, inputs, environment, "--job_array", "3", "--gpu_request", "gpus-per-node=1")
    assert run.code == 0, run.output
    assert run.vectors() == local.vectors()
    assert not (tmp_path / "violations").exists(), (tmp_path / "violations").read_text()
    seen = devices(tmp_path)
    assert len(seen) == SHARDS
    assert all(row["visible"] == row["device"] != "" for row in seen), seen
    assert len({row["device"] for row in seen}) > 1
    assert all(row["job"].startswith("array:") for row in seen)


def assert_gpus_are_asked_for(run: Run) -> None:
    """Only the tasks that embed ask for a GPU: a task's wrapper starts with its options for sbatch."""
    asking = {
        re.search(r"-J nf-(\w+?)_\(", text)[1] if re.search(r"-J nf-(\w+?)_\(", text) else path.parent.name
        for path in (run.directory / "work").glob("*/*/.command.run")
        for text in [path.read_text()]
        if "#SBATCH --gres=gpu:1" in text
    }
    assert asking == {"EMBED_SHARD"}
