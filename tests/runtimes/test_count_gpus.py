"""How many GPUs a run on this machine counts, without /dev/nvidia* as on WSL2, and what it says of those it leaves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_locks import remove_locks
from pipeline_run import PROJECT, run_pipeline

SCRIPT = PROJECT / "conf" / "count_gpus.sh"
CARD = "NVIDIA A100-SXM4-80GB"


@pytest.fixture
def two_gpus(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose nvidia-smi lists two cards, in both ways that it is asked."""
    names = [f"GPU-{tmp_path.name}-{index}" for index in range(2)]
    smi = tmp_path / "tools" / "nvidia-smi"
    smi.parent.mkdir()
    uuids = "".join(f"{index}, {name}\\n" for index, name in enumerate(names))
    cards = "".join(f"{index}, {CARD}\\n" for index in range(2))
    asked = f"*index,uuid*) printf '{uuids}' ;; *index,name*) printf '{cards}' ;; *) exit 9 ;;"
    smi.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\ncase "$*" in {asked} esac\n')
    smi.chmod(0o755)
    yield {"PATH": f"{smi.parent}:{os.environ['PATH']}"}
    remove_locks(*names)


def count(environment: dict[str, str]) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(["bash", SCRIPT], env={**kept, **environment}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["2", CARD]),
        ("1", ["1", CARD]),
        ("0,1", ["2", CARD]),
        ("GPU-7,MIG-8,3", ["3", CARD]),
        ("1,-1,0", ["1", CARD]),
        ("", ["0", "CUDA_VISIBLE_DEVICES is '', which hides all 2 that nvidia-smi lists"]),
        ("NoDevFiles", ["0", "CUDA_VISIBLE_DEVICES is 'NoDevFiles', which hides all 2 that nvidia-smi lists"]),
    ],
)
def test_devices_are_counted_as_tasks_see_them(
    visible: str | None, expected: list[str], two_gpus: dict[str, str]
) -> None:
    assert count(two_gpus | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})) == expected


def test_a_driver_that_fails_lists_nothing(tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed: 0, driver'\nexit 9\n")
    smi.chmod(0o755)
    assert count({"PATH": f"{tmp_path}:{os.environ['PATH']}"})[0] == "0"


@pytest.mark.skipif(bool(list(Path("/dev").glob("nvidia*"))), reason="there is a GPU here")
@pytest.mark.parametrize(
    ("arguments", "visible", "told"),
    [
        ((), None, "compute 2 GPUs, fp16"),
        (("--gpus", "0"), None, "compute CPU, fp32; not on 2 GPUs that are here, as --gpus is 0"),
        ((), "", "compute CPU, fp32; CUDA_VISIBLE_DEVICES is '', which hides all 2 that nvidia-smi lists"),
    ],
)
def test_the_plan_counts_cards_without_device_files(
    arguments: tuple[str, ...],
    visible: str | None,
    told: str,
    two_gpus: dict[str, str],
    inputs: Path,
    tmp_path: Path,
) -> None:
    environment = two_gpus | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    run = run_pipeline(tmp_path / "run", "-stub", *arguments, inputs=inputs, environment=environment, python_env=None)
    assert run.code == 0, run.output
    assert told in [line.strip() for line in run.output.splitlines()], run.output
    # A driver that is not kept loaded takes its time at each.
    assert (tmp_path / "asked").read_text().count("index,name") == 1
