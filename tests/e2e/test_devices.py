"""What a driver or a card cannot do is said once, in one line, by a whole run; with a stand-in for the driver."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from driver.driver import install_driver
from gpu_locks import remove_locks
from launch import MODEL, Launch, launch

pytestmark = [
    pytest.mark.one_engine,
    pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU"),
]

CUDA_MAJOR = int((torch.version.cuda or "0").partition(".")[0])


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU here")
def test_apples_gpu_is_not_looked_for_twice(tmp_path: Path) -> None:
    run = launch(tmp_path, "-profile", "test", "--model", MODEL, "--report", "false", "--device", "mps")
    assert run.code == 2, run.output
    assert "compute Apple's GPU, fp16" in run.output
    assert "No results: embed_shard.py: error: --device mps: PyTorch" in run.last_lines
    assert tries(run) == [("FAILED", "2")]


def tries(run: Launch) -> list[tuple[str, str]]:
    """(status, exit code) of every try of the shard."""
    with (run.results / "pipeline_info" / "trace.txt").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["name"].startswith("EMBED_SHARD")]
    return [(row["status"], row["exit"]) for row in rows]


@pytest.mark.skipif(CUDA_MAJOR != 13, reason="needs a PyTorch for CUDA 13")
@pytest.mark.parametrize(
    ("version", "cuda", "capability", "precision", "messages"),
    [
        (
            "550.54.14",
            (12, 4),
            "8.0",
            "fp16",
            ["the NVIDIA driver 550.54.14 runs CUDA 12.4 at most, but PyTorch", "or install requirements-cu12.lock"],
        ),
        (
            "520.61.05",
            (11, 8),
            "8.0",
            "fp16",
            ["runs CUDA 11.8 at most", "update the driver to 580 or later, or run with --gpus 0"],
        ),
        ("580.65.06", (13, 0), "7.0", "fp16", ["has no code for the Stand-in (compute capability 7.0)"]),
        ("580.65.06", (13, 0), "7.5", "bf16", ["--precision bf16 needs an Ampere GPU or a later one", "use fp16"]),
        ("580.65.06", (13, 0), "8.6", "fp8", ["--precision fp8 needs an Ada GPU or a later one", "use fp16"]),
    ],
)
def test_what_no_retry_cures_ends_the_run_at_once(
    version: str, cuda: tuple[int, int], capability: str, precision: str, messages: list[str], tmp_path: Path
) -> None:
    driver = install_driver(tmp_path / "driver", version, cuda, capability)
    run = launch(
        tmp_path / "run",
        *("-profile", "test", "--model", MODEL, "--report", "false", "--gpus", "1", "--precision", precision),
        environment=driver,
    )
    remove_locks(driver["DRIVER_UUID"])
    assert run.code == 2, run.output
    (line,) = [line for line in run.last_lines.splitlines() if line.startswith("No results: ")]
    assert line.startswith("No results: embed_shard.py: error: ")
    assert [message for message in messages if message not in line] == []
    assert tries(run) == [("FAILED", "2")]
    assert "Traceback" not in run.output and "UserWarning" not in run.output
    assert run.published() == []
