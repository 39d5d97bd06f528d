"""The kernels of a run without Nextflow, compiled beside its first steps as COMPILE_KERNELS does it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from virnucpro.api.config import RunConfig
from virnucpro.file_identity import digest_of_code
from virnucpro.kernel_folder import kernel_folder

_PACKAGE = Path(__file__).parents[1]
#: Rooms that decide what is compiled.
_ROOMS = ("kernels", "model", "pipeline")


@contextmanager
def compiling_beside(config: RunConfig, gpus: Sequence[str]) -> Iterator[subprocess.Popen[bytes] | None]:
    """Have a process compile the kernels of a run on these GPUs; it is ended on leaving.

    None where the run has no GPU, or an earlier one has compiled the same here. What goes wrong is not told: the
    processes of the shards compile what is missing, and tell it then.
    """
    process = None
    if gpus:
        mark = kernel_folder() / f"virnucpro-{_digest(config)}.compiled"
        process = None if mark.exists() else _start(config, gpus, mark.name)
    try:
        yield process
    finally:
        if process is not None:
            process.kill()
            process.wait()


def _digest(config: RunConfig) -> str:
    """What the kernels depend on: the model, what is asked of it, the code, this Python and this machine's cards."""
    code = digest_of_code(*(_PACKAGE / room for room in _ROOMS))
    asked = [config.model, config.precision, config.layers, config.pooling]
    return hashlib.sha256(json.dumps([asked, code, sys.prefix, platform.node()]).encode()).hexdigest()[:32]


def _start(config: RunConfig, gpus: Sequence[str], mark: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, [str(_PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    asked = {
        "model": config.model,
        "mark": mark,
        "precision": config.precision,
        "layers": ",".join(map(str, config.layers)),
        "pooling": ",".join(config.pooling),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "virnucpro", "compile-kernels", *(f"--{name}={value}" for name, value in asked.items())],
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ",".join(gpus)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
