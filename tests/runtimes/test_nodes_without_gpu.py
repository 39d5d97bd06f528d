"""A node of a cluster on which no GPU is to be seen: the task goes again, and another node is asked for."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from gpu_locks import remove_locks
from pipeline_run import run_pipeline
from test_profiles import CALLS, STAND_INS

#: Lists a GPU from the second task on: the first meets a node whose driver has failed.
SMI = """#!/bin/sh
case "$*" in *uuid*) ;; *) exit 0 ;; esac
[ -e .command.begin ] && mkdir "$TASKS/$SLURMD_NODENAME" 2>/dev/null && echo 'NVIDIA-SMI has failed' && exit 9
echo '0, GPU-{uuid}'
"""


@pytest.mark.faults("a node without a GPU", "`nextflow run` on a scheduler", "tried again on another node")
@pytest.mark.parametrize("parser", ["v1", "v2"])
def test_another_node_is_asked_for(parser: str, tmp_path: Path, inputs: Path) -> None:
    (tmp_path / "tasks").mkdir()
    smi = tmp_path / "tools" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(SMI.replace("{uuid}", tmp_path.name))
    smi.chmod(0o755)
    quick = tmp_path / "quick.config"
    # Parser v2 of Nextflow 25.04 wants a profile declared in every file.
    quick.write_text("profiles { slurm { } }\nexecutor { pollInterval = '1 sec'; exitReadTimeout = '30 sec' }\n")
    # Another task's node, in this run; and one of a run before it.
    nodes = tmp_path / "run" / "work" / "nodes_without_gpu"
    nodes.mkdir(parents=True)
    for name, age in {"node3": -600, "node1": 600}.items():
        (nodes / name).touch()
        os.utime(nodes / name, 2 * (time.time() - age,))
    path = f"{smi.parent}:{STAND_INS}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = run_pipeline(
        tmp_path / "run",
        *("-stub", "-profile", "slurm", "--gpus", "1"),
        inputs=inputs,
        environment={
            "PATH": path,
            "NXF_SYNTAX_PARSER": parser,
            "TASKS": str(tmp_path / "tasks"),
            "SLURMD_NODENAME": "node7",
            CALLS: str(tmp_path / "calls"),
        },
        configs=(quick,),
        python_env=None,
    )
    remove_locks(f"GPU-{tmp_path.name}")
    assert run.code == 0, run.output
    rows = [row for row in run.trace() if row["name"].startswith("EMBED_SHARD")]
    assert sorted((row["status"], row["exit"]) for row in rows)[0] == ("COMPLETED", "0")
    assert {row["exit"] for row in rows if row["status"] == "FAILED"} == {"75"}
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    asked = [options for options in calls if "--gres=gpu:1" in options]
    excluded = ["--exclude=node3,node7" in options for options in asked]
    assert excluded == sorted(excluded) and set(excluded) == {False, True}, asked
    assert (nodes / "node7").exists()
    assert all("--exclude" not in word for options in calls if options not in asked for word in options)
