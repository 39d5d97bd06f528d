"""``virnucpro embed`` has its kernels compiled beside its first steps, where there is a GPU and none are there yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from driver.driver import cuda_driver, cuda_found

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


def test_kernels_are_compiled_once_and_the_process_ends_with_the_run(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = cuda_found(cuda_driver(tmp_path_factory), tmp_path / "cache", "9.0")

    def ended(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(BIN), **found}
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
