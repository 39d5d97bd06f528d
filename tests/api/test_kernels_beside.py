"""``virnucpro embed`` has its kernels compiled beside its first steps, where there is a GPU and none are there yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from driver.driver import build_library

pytest.importorskip("triton")
pytestmark = pytest.mark.one_torch

BIN = Path(__file__).parents[2] / "bin"
#: Waits as a run would take longer, or leaves at once; prints how the process ended, if there was any.
BESIDE = """
import sys
from pathlib import Path
from virnucpro.api.config import RunConfig
from virnucpro.api.kernels_beside import compiling_beside

gpus, patience, *pooling = sys.argv[1:]
config = RunConfig(inputs=(Path("in.fasta"),), model="esm2_t6_8M_UR50D", precision="fp32", pooling=tuple(pooling))
with compiling_beside(config, gpus.split(",") if gpus else []) as process:
    if process is not None and patience == "waits":
        process.wait()
print(None if process is None else process.returncode)
"""


def test_kernels_are_compiled_once_and_the_process_ends_with_the_run(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("the library has this name on Linux alone")
    build_library("cuda.c", tmp_path / "libcuda.so.1")
    found = {"LD_LIBRARY_PATH": str(tmp_path), "TRITON_LIBCUDA_PATH": str(tmp_path), "CUDA_CALLS": os.devnull}
    asked = {"CUDA_ANSWER": "0", "DRIVER_CAPABILITY": "90", "TRITON_CACHE_DIR": str(tmp_path / "cache")}

    def ended(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(BIN), **found, **asked}
        command = [sys.executable, "-c", BESIDE, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.strip()

    assert ended("", "waits", "mean") == "None"
    assert ended("0", "leaves", "mean") == "-9"
    assert not list((tmp_path / "cache").glob("*.compiled"))
    assert ended("0", "waits", "mean") == "0"
    assert len(list((tmp_path / "cache").rglob("*.cubin"))) > 3
    assert ended("0", "waits", "mean") == "None"
    assert ended("0", "waits", "mean", "max") == "0"
