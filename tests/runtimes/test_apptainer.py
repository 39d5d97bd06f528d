"""The pipeline in the images of `containers/build.sh sif`, on this machine and under Slurm."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pipeline_run import EMBED_IMAGE, PROJECT, TOOLS_IMAGE, Run, run_pipeline
from slurm_cluster import SLURM, cluster, devices_of_containers, needs_slurm

IMAGES = [PROJECT / "containers" / f"{image.replace(':', '-')}.img" for image in (TOOLS_IMAGE, EMBED_IMAGE)]


def missing() -> str | None:
    """Why Apptainer tests cannot run here, in words."""
    if shutil.which("apptainer") is None:
        return "Apptainer is not installed"
    absent = [image.name for image in IMAGES if not image.exists()]
    return f"no {absent[0]}; run `containers/build.sh sif`" if absent else None


WHY = missing()
pytestmark = [pytest.mark.apptainer, pytest.mark.skipif(WHY is not None, reason=str(WHY))]


def test_the_vectors_are_those_of_a_bare_run(tmp_path: Path, inputs: Path, local: Run) -> None:
    run = run_pipeline(tmp_path, "-profile", "apptainer", "--gpus", "0", inputs=inputs, python_env=None)
    assert run.code == 0, run.output
    assert run.vectors() == local.vectors()
    wrappers = [path.read_text() for path in (tmp_path / "work").glob("*/*/.command.run")]
    assert wrappers and all("apptainer exec" in text and "--nv" not in text for text in wrappers)


@pytest.mark.slurm
@needs_slurm
def test_under_slurm_the_jobs_device_reaches_the_container(tmp_path: Path, inputs: Path, local: Run) -> None:
    with cluster(tmp_path, "open", SLURM / "engines") as environment:
        run = run_pipeline(
            tmp_path / "run",
            *("-profile", "slurm,apptainer", "--gpus", "0", "--shard_residues", "480"),
            inputs=inputs,
            environment=environment,
            configs=(SLURM / "cluster.config",),
            python_env=None,
        )
    assert run.code == 0, run.output
    assert run.vectors() == local.vectors()
    seen = devices_of_containers(tmp_path / "run")
    assert len(seen) == 3
    assert all(row["job"] == row["visible"] != "" for row in seen), seen
    assert len({row["job"] for row in seen}) > 1
