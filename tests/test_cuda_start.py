"""CUDA begun before PyTorch is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from driver.driver import cuda_driver

PROJECT = Path(__file__).parent.parent
START = """
import sys, threading
from virnucpro.cuda_start import start_cuda
start_cuda(sys.argv[1])
for thread in threading.enumerate():
    thread is threading.main_thread() or thread.join()
print("torch" in sys.modules)
"""
COUNT = """
import sys
from virnucpro.cuda_start import visible_gpus
print(visible_gpus(), "torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cuda_driver(tmp_path_factory)


def said(script: str, path: Path, noted: Path, answer: int, *arguments: str) -> str:
    """What a script prints that finds the library in ``path``."""
    environment = {"LD_LIBRARY_PATH": str(path), "CUDA_CALLS": str(noted), "CUDA_ANSWER": str(answer)}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "bin"), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def calls(device: str, path: Path, tmp_path: Path, answer: int = 0) -> list[str]:
    """What of CUDA a process called that begins with ``start_cuda(device)`` and does nothing else."""
    noted = tmp_path / "calls"
    assert said(START, path, noted, answer, device) == "False\n"
    return noted.read_text().splitlines() if noted.exists() else []


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_the_first_gpu_has_its_context_without_pytorch(device: str, library: Path, tmp_path: Path) -> None:
    assert calls(device, library, tmp_path) == ["cuInit 0", "cuDevicePrimaryCtxRetain 0"]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_other_devices_leave_cuda_alone(device: str, library: Path, tmp_path: Path) -> None:
    assert calls(device, library, tmp_path) == []


def test_a_driver_that_does_not_start_is_left_for_pytorch_to_tell_of(library: Path, tmp_path: Path) -> None:
    assert calls("cuda", library, tmp_path, answer=100) == ["cuInit 0"]


def test_a_library_that_cannot_be_loaded_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("no library")
    assert calls("cuda", tmp_path, tmp_path) == []


def test_gpus_are_counted_without_pytorch(library: Path, tmp_path: Path) -> None:
    assert said(COUNT, library, tmp_path / "calls", 0) == "3 False\n"
    assert said(COUNT, library, tmp_path / "calls", 100) == "0 False\n"
    (tmp_path / "libcuda.so.1").write_text("no library")
    assert said(COUNT, tmp_path, tmp_path / "calls", 0) == "0 False\n"
