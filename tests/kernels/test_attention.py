from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_reference import assert_as_accurate, boundaries, random, relative_error

from virnucpro.kernels import efficient_attention, hopper_attention
from virnucpro.kernels.attention import LOG2_E, varlen_attention, varlen_attention_ref
from virnucpro.kernels.tiles import AttentionTiles, HopperAttentionTiles, read_table

LENGTHS = [67, 64, 17, 17, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("heads", "head_dim"), [(2, 16), (2, 24), (1, 32), (1, 64), (1, 128)])
def test_varlen_attention(kernel_device: str, dtype: torch.dtype, heads: int, head_dim: int) -> None:
    qkv = 1.7 * random(sum(LENGTHS), 3 * heads * head_dim, dtype=dtype, device=kernel_device)
    arguments = (boundaries(LENGTHS, kernel_device), max(LENGTHS), heads, head_dim**-0.5)
    truth = varlen_attention_ref(qkv.double(), *arguments)
    twin = varlen_attention_ref(qkv, *arguments)
    assert_as_accurate(varlen_attention(qkv, *arguments), twin, truth, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("head_dim", [16, 32])
def test_low_parts_sharpen_the_logits(kernel_device: str, dtype: torch.dtype, head_dim: int) -> None:
    heads, lengths = 2, [70, 3]
    exact = 3 * random(sum(lengths), 3 * heads * head_dim)
    exact[:, 2 * heads * head_dim :] = exact[:, 2 * heads * head_dim :].to(dtype)
    qkv = exact.to(kernel_device, dtype)
    low = (exact.to(kernel_device) - qkv)[:, : 2 * heads * head_dim].to(dtype)
    arguments = (boundaries(lengths, kernel_device), max(lengths), heads, head_dim**-0.5)
    truth = varlen_attention_ref(exact.to(kernel_device).double(), *arguments)
    twin = varlen_attention_ref(qkv, *arguments, low)
    out = varlen_attention(qkv, *arguments, low)
    assert_as_accurate(out, twin, truth, dtype)
    assert 3 * relative_error(out, truth) < relative_error(varlen_attention(qkv, *arguments), truth)


@pytest.mark.parametrize("choice", [(64, 32, 4, 2), (128, 32, 4, 3), (128, 64, 8, 2)])
def test_other_tiles_give_the_same(kernel_device: str, choice: tuple[int, int, int, int]) -> None:
    qkv = random(sum(LENGTHS), 3 * 32, dtype=torch.float16, device=kernel_device)
    arguments = (boundaries(LENGTHS, kernel_device), max(LENGTHS), 1, 32**-0.5)
    out = varlen_attention(qkv, *arguments, tiles=AttentionTiles(*choice))
    truth = varlen_attention_ref(qkv.double(), *arguments)
    assert_as_accurate(out, varlen_attention_ref(qkv, *arguments), truth, torch.float16)


def test_large_logits(kernel_device: str) -> None:
    qkv = 12 * random(41, 3 * 32, device=kernel_device)
    arguments = (boundaries([41], kernel_device), 41, 1, 32**-0.5)
    truth = varlen_attention_ref(qkv.double(), *arguments)
    assert_as_accurate(varlen_attention(qkv, *arguments), varlen_attention_ref(qkv, *arguments), truth, torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("head_dim", [16, 24, 32, 64, 128])
def test_the_attention_of_older_cards(dtype: torch.dtype, head_dim: int) -> None:
    """PyTorch's, which every card has, on whatever card this is."""
    qkv = 1.7 * random(sum(EDGES), 3 * 2 * head_dim, dtype=dtype, device="cuda")
    arguments = (boundaries(EDGES, "cuda"), max(EDGES), 2, head_dim**-0.5)
    truth = varlen_attention_ref(qkv.double(), *arguments)
    assert_as_accurate(efficient_attention.attend(qkv, *arguments), varlen_attention_ref(qkv, *arguments), truth, dtype)


OLDER_CARD = """
import torch, launches
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from virnucpro.kernels.attention import attention_backend, varlen_attention

class Operators(TorchDispatchMode):
    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        seen.append(str(operator))
        return operator(*args, **(kwargs or {}))

launches.pretend(launches.CARDS[7, 5])
for dtype, sequences in ((torch.float16, 3), (torch.float32, 3), (torch.float16, 65_536)):
    seen = []
    with FakeTensorMode(), Operators():
        qkv = torch.empty(2 * sequences, 3 * 1280, dtype=dtype, device="cuda")
        out = varlen_attention(qkv, torch.empty(sequences + 1, dtype=torch.int32, device="cuda"), 2, 20, 1.0)
        assert out.shape == (2 * sequences, 1280) and out.dtype == dtype and attention_backend(qkv) == "efficient"
    print("aten._efficient_attention_forward.default" in seen)
"""


def test_a_card_below_8_takes_pytorchs() -> None:
    """For as many sequences as it takes; beyond them Triton's kernel, which `launches` compiles and prints as JSON."""
    pytest.importorskip("triton")
    paths = os.pathsep.join(str(path) for path in (Path(__file__).parent, Path(__file__).parents[2] / "bin"))
    done = subprocess.run(
        [sys.executable, "-c", OLDER_CARD], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second, compiled, third = done.stdout.splitlines()
    assert (first, second, third) == ("True", "True", "False") and json.loads(compiled)["kernel"] == "attention"


@pytest.mark.gpu
@pytest.mark.parametrize("longest", [181, 1024])
def test_real_lengths(longest: int) -> None:
    lengths = sorted([longest, *range(3, longest, 37)], reverse=True)
    qkv = random(sum(lengths), 3 * 1280, dtype=torch.float16, device="cuda")
    arguments = (boundaries(lengths, "cuda"), longest, 20, 0.125)
    truth = varlen_attention_ref(qkv.float(), *arguments)
    assert_as_accurate(varlen_attention(qkv, *arguments), varlen_attention_ref(qkv, *arguments), truth, torch.float16)


#: On the edges of tiles of 64 and 128 rows and beside them, around one and around several, in no order.
EDGES = [1, 350, 64, 65, 63, 3, 1026, 128, 129, 127, 193, 192, 191, 256, 17, 640]
HOPPER_CASES = sorted({(row[0], *row[2:]) for row in read_table("hopper_attention")["9.0"]})


def hopper_only(head_dim: int) -> None:
    if not hopper_attention.fits(torch.empty(0, dtype=torch.half).cuda(), head_dim, 1024):
        pytest.skip("no NVIDIA Hopper GPU")


def hopper(qkv: torch.Tensor, lengths: list[int], heads: int, scale: float, *tiles: int) -> torch.Tensor:
    out = torch.full_like(qkv[:, : qkv.shape[1] // 3], float("nan")).contiguous()
    bounds = boundaries(lengths, "cuda")
    hopper_attention.launch(
        qkv, bounds, max(lengths), heads, scale * LOG2_E, out, HopperAttentionTiles(*tiles) if tiles else None
    )
    return out


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("head_dim", "consumers", "key_rows"), HOPPER_CASES)
@pytest.mark.parametrize("sharpness", [1.7, 12.0])
def test_hopper_attention(dtype: torch.dtype, head_dim: int, consumers: int, key_rows: int, sharpness: float) -> None:
    hopper_only(head_dim)
    heads, scale = 5, head_dim**-0.5
    qkv = (sharpness * random(sum(EDGES), 3 * heads * head_dim)).to("cuda", dtype)
    arguments = (boundaries(EDGES, "cuda"), max(EDGES), heads, scale)
    truth = varlen_attention_ref(qkv.double(), *arguments)
    out = hopper(qkv, EDGES, heads, scale, consumers, key_rows)
    assert_as_accurate(out, varlen_attention_ref(qkv, *arguments), truth, dtype)
    assert torch.equal(out, hopper(qkv, EDGES, heads, scale, consumers, key_rows))


@pytest.mark.gpu
@pytest.mark.parametrize(("head_dim", "consumers", "key_rows"), HOPPER_CASES)
def test_hopper_attention_looks_at_no_neighbour(head_dim: int, consumers: int, key_rows: int) -> None:
    hopper_only(head_dim)
    heads, scale = 3, head_dim**-0.5
    qkv = random(sum(EDGES), 3 * heads * head_dim, dtype=torch.float16, device="cuda")
    clean = hopper(qkv, EDGES, heads, scale, consumers, key_rows).split(EDGES)
    spoilt = qkv.clone()
    for number, piece in enumerate(spoilt.split(EDGES)):
        if number % 2:
            piece.fill_(float("nan") if number % 4 == 1 else float("inf"))
    for number, (ours, before) in enumerate(
        zip(hopper(spoilt, EDGES, heads, scale, consumers, key_rows).split(EDGES), clean, strict=True)
    ):
        assert not ours.isfinite().any() if number % 2 else torch.equal(ours, before)


@pytest.mark.gpu
def test_hopper_attention_of_one_sequence_is_that_among_others() -> None:
    hopper_only(64)
    lengths = [350, 347, 347, 345, 343]
    qkv = random(sum(lengths), 3 * 320, dtype=torch.float16, device="cuda")
    together = hopper(qkv, lengths, 5, 0.125).split(lengths)
    for piece, among, length in zip(qkv.split(lengths), together, lengths, strict=True):
        assert torch.equal(hopper(piece.contiguous(), [length], 5, 0.125), among)


@pytest.mark.gpu
def test_hopper_attention_leaves_rows_of_no_sequence() -> None:
    hopper_only(64)
    qkv = random(500, 3 * 64, dtype=torch.float16, device="cuda")
    out = torch.full((500, 64), 7.0, dtype=torch.float16, device="cuda")
    bounds = torch.tensor([100, 230, 230, 300], dtype=torch.int32, device="cuda")
    hopper_attention.launch(qkv, bounds, 130, 1, 0.125 * LOG2_E, out)
    assert (out[:100] == 7).all()
    assert (out[300:] == 7).all()
    assert_as_accurate(
        out[100:300],
        varlen_attention_ref(qkv[100:300], bounds[[0, 1, 3]] - 100, 130, 1, 0.125),
        varlen_attention_ref(qkv[100:300].double(), bounds[[0, 1, 3]] - 100, 130, 1, 0.125),
        torch.float16,
    )


@pytest.mark.parametrize("programs", [132, 114, 78])
@pytest.mark.parametrize("blocks", [1, 2, 3, 6, 14, 37])
def test_every_program_gets_every_block(programs: int, blocks: int) -> None:
    turn = hopper_attention.turn_for(programs, blocks)
    for program in (0, programs // 2, programs - 1):
        pieces = [lap * programs + (program + lap * turn) % programs for lap in range(20 * blocks)]
        counts = [sum(piece % blocks == block for piece in pieces) for block in range(blocks)]
        assert 10 <= min(counts) <= max(counts) <= 30
    for lap in range(3):
        assert {(program + lap * turn) % programs for program in range(programs)} == set(range(programs))


def test_the_twin_is_softmax_attention_within_each_sequence() -> None:
    lengths, heads, head_dim = [5, 5, 3, 4, 1], 2, 6
    qkv = random(sum(lengths), 3 * heads * head_dim).double()
    out = varlen_attention_ref(qkv, boundaries(lengths), 5, heads, 0.4)
    for piece, attended in zip(qkv.split(lengths), out.split(lengths), strict=True):
        query, key, value = piece.view(-1, 3, heads, head_dim).permute(1, 2, 0, 3)
        expected = (0.4 * query @ key.mT).softmax(-1) @ value
        torch.testing.assert_close(attended.view(-1, heads, head_dim).transpose(0, 1), expected)
