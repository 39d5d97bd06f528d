"""Run the kernel tests of this folder under Triton's interpreter, which must be on before Triton is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.one_torch
def test_kernels_under_the_interpreter() -> None:
    pytest.importorskip("triton")
    here = Path(__file__).parent
    package = here.parents[1] / "bin"
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "interpreted", str(here)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert child.returncode == 0, child.stdout[-4000:] + child.stderr[-2000:]
    assert " passed" in child.stdout
