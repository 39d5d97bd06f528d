"""What is only compiled is compiled as if it had been launched, on several threads as on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

HERE = Path(__file__).parent
PROGRAM = """
import sys, types
import launches, torch
from virnucpro.kernels.launching import compiling_together

loaded = []
utils = types.SimpleNamespace(
    get_device_properties=lambda index: {"max_shared_mem": 227 << 10},
    load_binary=lambda name, *others: loaded.append(name) or (1, 1, 0, 0, 1024),
)
launches.AbsentDriver.utils, launches.AbsentDriver.launcher_cls = utils, lambda driver, *others: "launcher"
compiler = launches.pretend(launches.CARDS[9, 0])
if sys.argv[1] == "together":
    launches.JITFunction.warmup = lambda kernel, *args, grid, **options: compile(kernel, args, grid, options)

    def compile(kernel, args, grid, options):
        known = [launches.MockTensor(each.dtype) if isinstance(each, launches.FakeTensor) else each for each in args]
        with launches.unset_fake_temporarily():
            return compiler.launch(kernel, *known, grid=grid, warmup=True, **options)

    with compiling_together(torch.device("cpu"), 2):
        launches.run_model("fp16", "35M", 400)
    print(*sorted(loaded), sep="\\n")
else:
    launches.run_model("fp16", "35M", 400)
"""


def compiled(how: str, cache: Path) -> tuple[set[str], list[str]]:
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parents[1] / 'bin'}:{HERE}", "TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {path.parent.name for path in cache.rglob("*.cubin")}, done.stdout.splitlines()


def test_the_same_kernels_are_compiled_together_and_loaded_once_each(tmp_path: Path) -> None:
    one_by_one, _ = compiled("launched", tmp_path / "launched")
    together, loaded = compiled("together", tmp_path / "together")
    assert together == one_by_one
    assert len(loaded) == len(one_by_one) > 5
