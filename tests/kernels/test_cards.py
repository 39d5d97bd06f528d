"""Every kernel that the model launches on a card compiles for it, fits into it and keeps its numbers in registers.

`launches.py` compiles without a card, in a process for each. A part of the cases is tried in every run of the tests;
all of them, and the cards whose kernels are another's, by ``make test-cards``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
from launches import CARDS, MODELS

from virnucpro.config import PRECISIONS
from virnucpro.kernels import device
from virnucpro.kernels.tiles import read_table, rows_for
from virnucpro.machine import usable_cores
from virnucpro.pipeline.device import LEAST_CAPABILITY

pytestmark = pytest.mark.one_torch
PROGRAM = Path(__file__).with_name("launches.py")
BIN = Path(__file__).parents[2] / "bin"
#: Tokens of the longest sequence, one for each row of the tables of tiles.
LONGEST = (100, 200, 400, 1026)
#: What every run of the tests compiles: each dimension of a head, each precision, first and last rows of tiles.
SOME = {
    ("fp16", "8M", 100),
    ("fp16", "35M", 1026),
    ("bf16", "150M", 400),
    ("fp16", "650M", 200),
    ("fp16", "650M", 1026),
    ("fp32", "8M", 1026),
    ("fp8", "650M", 1026),
    ("fp16", "15B", 1026),
}
#: Cards that run what is compiled for another but for the assembler's last step.
LIKE_OTHERS = {(8, 7), (10, 3), (12, 1)}
#: Kernel and precision -> bytes of a thread's stack that may stand in for registers, by the dimension of a head.
SPILLS = {
    ("attention", "fp32"): {24: 176, 32: 176, 64: 1256, 128: 7664},
    ("linear", "fp16"): {64: 8},
    ("linear", "bf16"): {64: 8},
    ("linear", "fp8"): {128: 272},
}
#: Below 8.0.
SPILLS_WITHOUT_TENSOR_CORES = {("add_layer_norm", "fp16"): {128: 8}}
PLAIN = {"add_layer_norm", "rotary", "pool", "attention", "gelu"}
FUSED = {"add_layer_norm", "linear", "pool", "row_statistics"}


def named(card: tuple[int, int]) -> str:
    return f"{card[0]}.{card[1]}"


def precisions(card: tuple[int, int]) -> list[str]:
    return [name for name in PRECISIONS if card >= LEAST_CAPABILITY.get(name, ((0, 0), ""))[0]]


def cases(card: tuple[int, int], *, every: bool) -> list[tuple[str, str, int]]:
    possible = product(precisions(card), MODELS, LONGEST)
    return [case for case in possible if every or case in SOME]


def compile_cases(card: tuple[int, int], cases: list[tuple[str, str, int]], cache: Path) -> list[dict[str, Any]]:
    arguments = [f"{precision}:{size}:{longest}" for precision, size, longest in cases]
    done = subprocess.run(
        [sys.executable, PROGRAM, named(card), *arguments],
        env={**os.environ, "PYTHONPATH": str(BIN), "TRITON_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def some_and_all(card: tuple[int, int]) -> list[Any]:
    every = pytest.param((card, True), id=f"{named(card)}-all", marks=pytest.mark.cards)
    return [every] if card in LIKE_OTHERS else [pytest.param((card, False), id=named(card)), every]


RUNS = [run for card in CARDS for run in some_and_all(card)]
Compiled = dict[tuple[tuple[int, int], bool], Future[list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> Iterator[Compiled]:
    """What came of each card's cases that were chosen, as many cards at a time as there are cores."""
    cache = request.config.cache.mkdir("triton")
    tests = [item for item in request.session.items if "compiled" in getattr(item, "fixturenames", ())]
    with ThreadPoolExecutor(usable_cores()) as pool:
        yield {
            (card, every): pool.submit(compile_cases, card, cases(card, every=every), cache)
            for card, every in (item.callspec.params["run"] for item in tests)
        }


def allowed_spill(card: tuple[int, int], row: dict[str, Any]) -> int:
    width, heads = MODELS[row["model"]]
    allowed = SPILLS_WITHOUT_TENSOR_CORES | SPILLS if card < (8, 0) else SPILLS
    return allowed.get((row["kernel"], row["precision"]), {}).get(width // heads, 0)


@pytest.mark.parametrize("run", RUNS)
def test_every_launch_compiles_fits_and_keeps_to_its_registers(
    run: tuple[tuple[int, int], bool], compiled: Compiled
) -> None:
    card, every = run
    rows = compiled[run].result()
    forms = {(row["precision"], row["model"], row["longest"]): row["form"] for row in rows if "form" in row}
    assert [row for row in rows if "error" in row] == []
    assert forms.keys() == set(cases(card, every=every))
    launches = [row for row in rows if "kernel" in row]
    assert [row for row in launches if row["shared_memory"] > CARDS[card].shared_memory] == []
    assert [row for row in launches if row["spilled"] > allowed_spill(card, row)] == []
    kernels = {row["kernel"] for row in launches}
    assert kernels >= (PLAIN | FUSED | {"hopper_attention"} if card == (9, 0) else PLAIN - {"attention"})
    assert ("triton_linear" in kernels) == bool(rows_for(read_table("linear"), card))
    # Below 8.0 attention is PyTorch's, as Triton would multiply without tensor cores.
    assert ("attention" in kernels) == (card >= (8, 0))
    assert ("gelu_quantise" in kernels) == (card >= (8, 9) and card != (9, 0))
    assert {form.startswith(("Fused", "Fp8Fused")) for form in forms.values()} == (
        {True, False} if card == (9, 0) else {False}
    )
    multiply = {"attention", "triton_linear"}
    sixteen_bits = [row for row in launches if row["kernel"] in multiply and row["precision"] in ("fp16", "bf16")]
    assert all(row["tensor_cores"] for row in sixteen_bits)


def test_a_kernel_that_does_not_fit_is_seen(tmp_path: Path) -> None:
    """Tiles of 227 KiB on a card of 99: the program sees the compiler's own figure."""
    (row,) = compile_tiles((8, 6), "128, 128, 8, 4", tmp_path)
    assert row["shared_memory"] > CARDS[8, 6].shared_memory


def test_a_kernel_that_spills_is_seen(tmp_path: Path) -> None:
    (row,) = compile_tiles((8, 0), "128, 128, 4, 2", tmp_path)
    assert row["spilled"] > 0


TILES = """
import sys, torch, launches
from torch._subclasses.fake_tensor import FakeTensorMode
from virnucpro.kernels.attention import varlen_attention
from virnucpro.kernels.tiles import AttentionTiles
launches.pretend(launches.CARDS[{card}])
with FakeTensorMode():
    qkv = torch.empty(1280, 3 * 20 * 128, dtype=torch.float16, device="cuda")
    bounds = torch.empty(11, dtype=torch.int32, device="cuda")
    varlen_attention(qkv, bounds, 128, 20, 1.0, tiles=AttentionTiles({tiles}))
"""


def compile_tiles(card: tuple[int, int], tiles: str, cache: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", TILES.format(card=card, tiles=tiles)],
        env={**os.environ, "PYTHONPATH": f"{BIN}:{PROGRAM.parent}", "TRITON_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


OTHER_TRITON = """
import triton
triton.__version__ = "{version}"
from virnucpro.kernels import device
print(device.gluon is not None, device.triton is not None)
"""


@pytest.mark.parametrize(
    ("version", "gluon"), [("3.4.0", False), ("3.5.1", False), ("3.6.0", True), ("3.6.1", True), ("3.60.0", False)]
)
def test_the_kernels_for_hopper_are_for_one_version_of_triton(version: str, gluon: bool) -> None:
    assert device.GLUON_OF == "3.6."
    done = subprocess.run(
        [sys.executable, "-c", OTHER_TRITON.format(version=version)],
        env={**os.environ, "PYTHONPATH": str(BIN)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [str(gluon), "True"], done.stderr
