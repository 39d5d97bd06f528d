"""A stand-in for an NVIDIA driver of any version: NVML's library, and nvidia-smi, for processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

SMI = """#!/bin/sh
case "$*" in
*compute_cap*) echo "{capability}" ;;
*query-gpu*) echo "0, {uuid}" ;;
-L) echo "GPU 0: Stand-in (UUID: {uuid})" ;;
*) echo "| NVIDIA-SMI {version}    Driver Version: {version}    CUDA Version: {major}.{minor}     |" ;;
esac
"""


def build_library(source: str, library: Path) -> None:
    """Compile a C file of this folder into a library that a process loads by its name."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, Path(__file__).with_name(source)], check=True)


def install_driver(folder: Path, version: str, cuda: tuple[int, int], capability: str = "8.0") -> dict[str, str]:
    """Build the driver in ``folder``; returns the environment in which a process meets it."""
    folder.mkdir(parents=True)
    build_library("nvml.c", folder / "libnvidia-ml.so.1")
    uuid = f"GPU-{uuid4()}"
    smi = folder / "nvidia-smi"
    smi.write_text(SMI.format(version=version, major=cuda[0], minor=cuda[1], capability=capability, uuid=uuid))
    smi.chmod(0o755)
    return {
        "LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "PATH": f"{folder}:{os.environ['PATH']}",
        "DRIVER_VERSION": version,
        "DRIVER_CUDA": str(1000 * cuda[0] + 10 * cuda[1]),
        "DRIVER_UUID": uuid,
        "DRIVER_CAPABILITY": capability.replace(".", ""),
    }


def cuda_found(driver: Path, kernels: Path, card: str) -> dict[str, str]:
    """Where a process finds cards of this compute capability, Triton the driver, and where it keeps kernels."""
    found = {"LD_LIBRARY_PATH": str(driver), "TRITON_LIBCUDA_PATH": str(driver), "CUDA_CALLS": os.devnull}
    asked = {"CUDA_ANSWER": "0", "DRIVER_CAPABILITY": card.replace(".", ""), "TRITON_CACHE_DIR": str(kernels)}
    return found | asked


def cuda_driver(factory: pytest.TempPathFactory) -> Path:
    """A folder with a stand-in for CUDA's driver."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the library has this name on Linux alone")
    folder = factory.mktemp("driver")
    build_library("cuda.c", folder / "libcuda.so.1")
    return folder
