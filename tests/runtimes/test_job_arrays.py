"""A job array asks Slurm for what each of its tasks needs: Nextflow submits it as a task of its own."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from pipeline_run import run_pipeline

STAND_INS = Path(__file__).parent / "stand_ins"
#: Of sbatch's options, those that say what a job needs.
NEEDS = {"-c": "CPUs", "--mem": "memory", "-t": "time", "-p": "partition", "--gres": "GPU"}


def arrays(folder: Path, *arguments: str, parser: str = "v1", site: str = "") -> list[dict[str, str]]:
    """What each array of a run on the stand-in for Slurm asked for."""
    (folder / "model.pt").write_bytes(b"")
    (folder / "few.fasta").write_text(">p\nMKV\n")
    (folder / "site.config").write_text(f"profiles {{ slurm {{ }} }}\nexecutor.pollInterval = '1 sec'\n{site}")
    run = run_pipeline(
        folder / "run",
        *("-stub", "-profile", "slurm", "--job_array", "2", "--queue", "cpu", "--gpu_queue", "gpu", *arguments),
        inputs=folder,
        environment={
            "PATH": f"{STAND_INS}:{os.environ['PATH']}",
            "VIRNUCPRO_TEST_CALLS": str(folder / "calls"),
            "CUDA_VISIBLE_DEVICES": "0",
            "NXF_SYNTAX_PARSER": parser,
        },
        configs=(folder / "site.config",),
        python_env=None,
    )
    assert run.code == 0, run.output
    jobs = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    return [needs(options) for options in jobs if "--array" in options]


def needs(options: list[str]) -> dict[str, str]:
    words = [part for option in options for part in option.split("=", 1)]
    return {NEEDS[name]: value for name, value in pairwise(words) if name in NEEDS}


@pytest.mark.parametrize("parser", ["v1", "v2"])
def test_an_array_asks_for_its_tasks_gpu_memory_and_time(parser: str, tmp_path: Path) -> None:
    asked = {"CPUs": "4", "memory": "16384M", "time": "04:00:00", "partition": "gpu", "GPU": "gpu:1"}
    assert arrays(tmp_path, "--gpus", "1", parser=parser) == [asked]


def test_an_array_asks_for_what_a_sites_own_selectors_say(tmp_path: Path) -> None:
    site = "process { withLabel: gpu { time = '2h'; memory = '32 GB' }\nwithName: EMBED_SHARD { memory = '24 GB' } }\n"
    asked = {"CPUs": "8", "memory": "24576M", "time": "02:00:00", "partition": "cpu"}
    assert arrays(tmp_path, "--gpus", "0", site=site) == [asked]
