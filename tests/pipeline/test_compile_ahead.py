"""Kernels are compiled before the first batch, each once, wherever they can be kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(__file__).parents[2] / "bin"
TESTS = Path(__file__).parents[1]

FIND = """
from virnucpro.pipeline import compile_ahead
compile_ahead._find_folder()
import os
print(os.environ["TRITON_CACHE_DIR"])
"""
RUN = """
import sys
from itertools import product
from pathlib import Path
import torch
from pipeline.models import batch_of, random_sequences, small_esm2
from virnucpro.config import VectorConfig
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.pipeline.async_inference import AsyncInferenceRunner
from virnucpro.pipeline.compile_ahead import compile_ahead
from virnucpro.pipeline.output_plan import OutputPlan

def kept():
    return {path for path in Path(sys.argv[1]).rglob("*") if path.suffix in (".cubin", ".so")}

dim, heads, precision = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
model = PackedEsm2.from_fair_esm(small_esm2(3, layers=2, dim=dim, heads=heads), precision, "cuda")
plan = OutputPlan.of(2, VectorConfig(layers=(1, -1), pooling=("mean", "max")))
runner = AsyncInferenceRunner(model, "cuda", plan=plan, monitor_interval=0)
compile_ahead(model.config, precision, torch.device("cuda"), plan)
before = kept()
for seed, longest in product(range(3), (40, 100, 180, 300, 900, 1022)):
    runner.process_batch(batch_of(random_sequences(30 + seed, seed, longest)).to_dict())
print(len(before), [path.name for path in kept() - before])
"""


def program(text: str, *arguments: object, cache: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(BIN), str(TESTS), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_kernels_are_kept_where_they_were_told_to_be(tmp_path: Path) -> None:
    done = program(FIND, cache=tmp_path / "kernels")
    assert (done.stdout.strip(), done.stderr) == (str(tmp_path / "kernels"), "")
    assert list((tmp_path / "kernels").iterdir()) == []


@pytest.mark.parametrize("told", [{}, {"TRITON_HOME": "h"}, {"TRITON_HOME": "h", "TRITON_CACHE_DIR": "c"}])
@pytest.mark.parametrize("home", ["/home/me", None])
def test_the_folder_is_the_one_that_triton_takes(home: str | None, told: dict[str, str]) -> None:
    pytest.importorskip("triton")
    unknown = "import pwd\ndef unknown(_): raise KeyError\npwd.getpwuid = unknown\n"
    both = "from triton import knobs\nfrom virnucpro.kernel_folder import kernel_folder\nprint(knobs.cache.dir)\n"
    ours = {name: value for name, value in os.environ.items() if name != "HOME" and not name.startswith("TRITON_")}
    environment = {**ours, **({"HOME": home} if home else {}), **told, "PYTHONPATH": str(BIN)}
    command = [sys.executable, "-c", unknown + both + "print(kernel_folder())"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    theirs, found = done.stdout.splitlines()
    assert Path(theirs) == Path(found)


def test_a_folder_that_cannot_be_made_is_told_once_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = program(FIND, cache=tmp_path / "file" / "kernels")
    assert done.stderr == (
        f"cannot keep compiled kernels in {tmp_path}/file/kernels (Not a directory), so that this task compiles its "
        "own; name another folder with --triton_cache, or in TRITON_CACHE_DIR\n"
    )
    own = Path(done.stdout.strip())
    assert own.name.startswith("virnucpro-kernels-")
    assert not own.exists()


def test_a_full_disk_is_told_once_and_replaced(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        done = program(FIND, cache=tmp_path)
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)
    assert f"cannot keep compiled kernels in {tmp_path} (No space left on device)" in done.stderr
    assert Path(done.stdout.strip()).name.startswith("virnucpro-kernels-")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize(("dim", "heads"), [(320, 20), (480, 20), (1280, 20)])
def test_no_batch_waits_for_a_kernel(dim: int, heads: int, precision: str, tmp_path: Path) -> None:
    done = program(RUN, tmp_path, dim, heads, precision, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    count, later = done.stdout.split(" ", 1)
    assert int(count) > 0
    assert later.strip() == "[]"
