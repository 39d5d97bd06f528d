"""The linear layer with GELU or rotary embedding inside, against the same in fp64."""

from __future__ import annotations

import pytest
import torch
from kernel_reference import assert_as_accurate, random, rotation_of

from virnucpro.kernels import tiles as tables
from virnucpro.kernels import triton_linear
from virnucpro.kernels.linear_gelu import linear_gelu, linear_gelu_ref
from virnucpro.kernels.linear_rotary import linear_rotary, linear_rotary_ref
from virnucpro.kernels.tiles import LinearTiles

#: More tokens than a tile has rows and no multiple of them.
LENGTHS = [37, 5, 1, 30]
TOKENS = sum(LENGTHS)
TILES = LinearTiles(rows=32, columns=64, depth=16, warps=4, stages=2)
SIXTEEN_BITS = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def layer(
    features: int, width: int, dtype: torch.dtype, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = random(TOKENS, width, dtype=dtype, device=device)
    weight = random(features, width, dtype=dtype, device=device, seed=1) * width**-0.5
    return x, weight, random(features, dtype=dtype, device=device, seed=2)


@SIXTEEN_BITS
@pytest.mark.parametrize(("width", "features"), [(16, 64), (48, 192), (32, 72)])
def test_gelu_inside(kernel_device: str, dtype: torch.dtype, width: int, features: int) -> None:
    given = layer(features, width, dtype, kernel_device)
    truth = linear_gelu_ref(*(each.double() for each in given))
    assert_as_accurate(linear_gelu(*given, tiles=TILES), linear_gelu_ref(*given), truth, dtype)


@SIXTEEN_BITS
@pytest.mark.parametrize(("heads", "head_dim"), [(4, 16), (2, 64), (4, 24), (3, 16), (1, 128)])
def test_rotary_inside(kernel_device: str, dtype: torch.dtype, heads: int, head_dim: int) -> None:
    """Tiles that hold several heads, a part of one, heads of no power of two, and queries, keys and values at once."""
    width = heads * head_dim
    given = layer(3 * width, width, dtype, kernel_device)
    rotation = rotation_of(LENGTHS, head_dim // 2, kernel_device)
    truth = linear_rotary_ref(*(each.double() for each in given), rotation, heads, adjacent=True)
    twin = linear_rotary_ref(*given, rotation, heads, adjacent=True)
    ours = linear_rotary(*given, rotation, heads, adjacent=True, tiles=TILES)
    assert_as_accurate(ours, twin, truth, dtype)


@SIXTEEN_BITS
def test_what_is_not_finite_does_not_vanish(kernel_device: str, dtype: torch.dtype) -> None:
    x, weight, bias = layer(64, 16, dtype, kernel_device)
    x[3] = float("nan")
    x[5, 0] = float("inf")
    found = linear_gelu(x, weight, bias, tiles=TILES).isfinite().all(1)
    assert found.nonzero().ravel().tolist() == [row for row in range(TOKENS) if row not in (3, 5)]


def test_a_row_does_not_depend_on_those_beside_it(kernel_device: str) -> None:
    x, weight, bias = layer(64, 48, torch.float16, kernel_device)
    whole = linear_gelu(x, weight, bias, tiles=TILES)
    for first, last in ((0, 1), (11, 50), (40, TOKENS)):
        assert torch.equal(linear_gelu(x[first:last].contiguous(), weight, bias, tiles=TILES), whole[first:last])


def test_only_widths_that_its_tiles_divide_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[320, 128, 128, 32, 4, 4], [1280, 128, 256, 64, 8, 3]]
    monkeypatch.setattr(tables, "read_table", lambda kernel: {"default": rows})
    found = {width: tables.linear_tiles(torch.empty(0, width)) for width in (64, 320, 321, 480, 640, 1280, 2560)}
    narrow, wide = (LinearTiles(*row[1:]) for row in rows)
    assert found == {64: narrow, 320: narrow, 321: None, 480: None, 640: wide, 1280: wide, 2560: None}


def test_neither_fp32_nor_a_cpu_has_it() -> None:
    for dtype in (torch.float16, torch.float32):
        assert triton_linear.tiles_for(torch.empty(2, 64, dtype=dtype)) is None
