"""Many shards in pods, under faults of all kinds at once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from kube_cluster import GPU
from kube_faults import POD_FAULTS, RandomFaults
from kube_node import why_not
from kube_run import record, recorded, site
from runtimes.pipeline_run import run_pipeline, small_fasta, small_model

pytestmark = [pytest.mark.k8s, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]


def test_two_hundred_shards_with_random_faults_end_whole(tmp_path: Path) -> None:
    """Everything that may happen to a pod, and to calls what is tried again; tasks end with 74, 75 and 137."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    small_model(inputs / "model.pt")
    small_fasta(inputs / "few.fasta", records=400, residues=60)
    local = run_pipeline(tmp_path / "local", "--gpus", "0", "--report", "false", inputs=inputs)
    assert local.code == 0, local.output
    draw = random.Random(21)
    codes = [(shard, attempt) for shard in range(200) for attempt in (1, 2) if draw.random() < 0.1]
    words = " ".join(f"shard-{shard:05}:{attempt}:{draw.choice((74, 75, 137))}" for shard, attempt in codes)
    image = recorded(record(inputs, 120, tmp_path / "recordings"), 0.2, words)
    faults = RandomFaults(seed=21)
    with site(inputs, image, devices=8, faults=faults) as here:
        run = here.run("--shard_residues", "120", "--report", "false", config="executor.queueSize = 40\n")
        assert run.code == 0, run.output
        assert run.vectors() == local.vectors()
        assert here.cluster.wait_until_idle() == []
        assert 1 < here.cluster.peak_devices <= 8
        assert all(len(pod.devices) == pod.limit(GPU) for pod in here.cluster.pods)
    shards = {pod.task for pod in here.cluster.of_task("EMBED_SHARD")}
    assert len(shards) == 200
    assert set(faults.met) == {*POD_FAULTS, "500", "reset"} - {"pending"}
    assert len(here.cluster.of_task("EMBED_SHARD")) > 240
