"""Kernels compiled by a process that needs no card are those that a launch on the card looks for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from descriptions import describe
from driver.driver import cuda_driver, cuda_found

from virnucpro.model import kept_descriptions
from virnucpro.model.checkpoint_files import locate

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.one_torch

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "bin" / "compile_kernels.py"
LAUNCHES = ROOT / "tests" / "kernels"
MODEL = "esm2_t6_8M_UR50D"
#: What launches.py, which goes the way of a tensor on the card, compiles for a card and a case; each with its launcher.
LAUNCHED = """
import sys, launches
from virnucpro.model.families import FAMILIES
from triton.backends.nvidia.driver import CudaLauncher

compiler = launches.pretend(launches.CARDS[tuple(map(int, sys.argv[1].split(".")))])
launches.resources = lambda cubin: launches.Resources(0, 0)
launch = compiler.launch

def with_launcher(*arguments, **options):
    kernel = launch(*arguments, **options)
    CudaLauncher(kernel.src, kernel.metadata)
    return kernel

compiler.launch = with_launcher
(family,) = (each for each in FAMILIES if each.name == sys.argv[3])
for longest in (100, 200, 400, 1021 if family.positions else 1026):
    launches.run_model(sys.argv[2], "8M", longest, family=family)
"""


#: Cards and precisions with kernels of their own.
CASES = [("9.0", "fp16"), ("9.0", "fp8"), ("8.9", "fp8"), ("8.0", "fp16"), ("7.5", "fp32")]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cuda_driver(tmp_path_factory)


def environment(driver: Path, cache: Path, card: str, **others: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'bin'}:{LAUNCHES}", **cuda_found(driver, cache, card), **others}


def compiled(environment: dict[str, str], *options: str, model: str = MODEL) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, "--model", model, "--mark", "done", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def kept(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.rglob("*") if path.suffix in (".cubin", ".so")}


@pytest.mark.parametrize(("card", "precision"), CASES)
def test_a_launch_on_the_card_finds_all_that_it_needs(card: str, precision: str, driver: Path, tmp_path: Path) -> None:
    there = environment(driver, tmp_path, card)
    done = compiled(there, "--precision", precision, "--layers=0,-1", "--pooling=mean,max")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "done").exists()
    launch_finds_all(tmp_path, there, card, precision)


@pytest.mark.parametrize(("family", "precision"), [("ESM-1b", "fp16"), ("ESM-1v", "fp32")])
def test_so_does_a_described_model_of_another_family(
    family: str, precision: str, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({}, model := tmp_path / "own.pt")
    described = kept_descriptions._place(locate(model))
    described.parent.mkdir(parents=True)
    describe(name="own", family=family, embed_dim=320, heads=20).write(described)
    there = environment(driver, tmp_path / "cache", "9.0")
    options = ("--precision", precision, "--layers=0,-1", "--pooling=mean,max")
    done = compiled(there, *options, model=str(model))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    launch_finds_all(tmp_path / "cache", there, "9.0", precision, family)


def launch_finds_all(cache: Path, there: dict[str, str], card: str, precision: str, family: str = "ESM-2") -> None:
    """What a launch on the card needs is kept already."""
    before = kept(cache)
    assert len(before) > 5
    launched = subprocess.run(
        [sys.executable, "-c", LAUNCHED, card, precision, family],
        env=there,
        capture_output=True,
        text=True,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    assert '"error"' not in launched.stdout
    assert launched.stdout.count('"kernel"') > 3
    assert kept(cache) == before


#: What batches of any length launch on the card, after EMBED_SHARD's own preparation.
BATCHES = """
import sys
from itertools import product
import torch
from pipeline.models import batch_of, random_sequences, small_esm2
from virnucpro.config import VectorConfig
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.pipeline.async_inference import AsyncInferenceRunner
from virnucpro.pipeline.compile_ahead import compile_ahead
from virnucpro.pipeline.output_plan import OutputPlan

dim, precision = int(sys.argv[1]), sys.argv[2]
model = PackedEsm2.from_fair_esm(small_esm2(3, layers=2, dim=dim, heads=20), precision, "cuda")
plan = OutputPlan.of(2, VectorConfig(layers=(0, -1), pooling=("mean", "max")))
compile_ahead(model.config, precision, torch.device("cuda"), plan)
runner = AsyncInferenceRunner(model, "cuda", plan=plan, monitor_interval=0)
for seed, longest in product(range(3), (40, 100, 180, 300, 900, 1022)):
    runner.process_batch(batch_of(random_sequences(30 + seed, seed, longest)).to_dict())
"""


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32", "fp8"])
@pytest.mark.parametrize(("model", "dim"), [("esm2_t6_8M_UR50D", 320), ("esm2_t33_650M_UR50D", 1280)])
def test_embedding_on_the_card_compiles_nothing_more(model: str, dim: int, precision: str, tmp_path: Path) -> None:
    path = os.pathsep.join(map(str, (ROOT / "bin", ROOT / "tests", *sys.path)))
    there = {**os.environ, "PYTHONPATH": path, "TRITON_CACHE_DIR": str(tmp_path)}
    done = compiled(there, "--precision", precision, "--layers=0,-1", "--pooling=mean,max", model=model)
    assert (done.returncode, done.stderr) == (0, "")
    before = kept(tmp_path)
    assert len(before) > 5
    command = [sys.executable, "-c", BATCHES, str(dim), precision]
    embedded = subprocess.run(command, env=there, capture_output=True, text=True, check=False)
    assert embedded.returncode == 0, embedded.stderr
    assert kept(tmp_path) == before


def test_of_two_processes_at_once_one_compiles_each_kernel(driver: Path, tmp_path: Path) -> None:
    """Counted at NVIDIA's assembler, which makes each kernel's last form."""
    assembler = tmp_path / "ptxas"
    real = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    assembler.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo "$@" >>{tmp_path}/calls\nexec {real} "$@"\n')
    assembler.chmod(0o755)
    cache = tmp_path / "cache"
    there = environment(driver, cache, "9.0", TRITON_PTXAS_PATH=str(assembler))
    command = [PROGRAM, "--model", MODEL, "--mark", "done", "--precision", "fp32"]
    both = [subprocess.Popen(command, env=there) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    made = len(list(cache.rglob("*.cubin")))
    assert made > 3
    assert len((tmp_path / "calls").read_text().splitlines()) == made
    assert [path.name for path in cache.glob("virnucpro-*")] == ["virnucpro-320x20-fp32-9.0.lock"]


def test_a_model_that_nothing_is_known_of_yet_is_left_to_the_shards(driver: Path, tmp_path: Path) -> None:
    done = compiled(environment(driver, tmp_path / "cache", "9.0"), model=str(tmp_path / "model.pt"))
    told = "the sizes of this model are not known yet, so that EMBED_SHARD compiles its kernels\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("answer", ["0", "100"], ids=["a folder that cannot be made", "no GPU"])
def test_where_nothing_could_be_kept_or_used_nothing_is_compiled(answer: str, driver: Path, tmp_path: Path) -> None:
    cache = tmp_path / "file" / "cache" if answer == "0" else tmp_path / "cache"
    (tmp_path / "file").touch()
    done = compiled(environment(driver, cache, "9.0", CUDA_ANSWER=answer))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not cache.exists()


def test_a_process_without_room_for_its_thread_is_told_and_does_nothing_else() -> None:
    program = """
from virnucpro.pipeline import forks
def fail(_):
    raise RuntimeError("can't start new thread")
forks.end_with_parent = fail
try:
    with forks.Forks(1) as started:
        started.submit(lambda: None)
finally:
    print("here")
print(started.failed)
"""
    there = {**os.environ, "PYTHONPATH": str(ROOT / "bin")}
    done = subprocess.run([sys.executable, "-c", program], env=there, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "here\n1\n", "RuntimeError: can't start new thread\n")


def test_a_compiler_that_fails_is_told_and_leaves_no_mark(driver: Path, tmp_path: Path) -> None:
    done = compiled(environment(driver, tmp_path, "9.0", CC="/bin/false"), "--precision", "fp32")
    assert done.returncode == 75
    assert "CalledProcessError: Command '['/bin/false', " in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("compile_kernels.py: error: ")
    assert last.endswith(" kernels could not be compiled; EMBED_SHARD compiles them itself")
    assert not (tmp_path / "done").exists()
