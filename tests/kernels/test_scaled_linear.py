"""The linear layer with a norm before it and GELU or rotary embedding after it inside, against the same in fp64."""

from __future__ import annotations

import pytest
import torch
from kernel_reference import assert_as_accurate, random, rotation_of

from virnucpro.kernels import tiles as tables
from virnucpro.kernels.fused_linear import fold_norm
from virnucpro.kernels.layer_norm import add_layer_norm_ref, row_scale_ref
from virnucpro.kernels.scaled_linear import (
    scaled_linear_gelu,
    scaled_linear_gelu_ref,
    scaled_linear_rotary,
    scaled_linear_rotary_ref,
    scales_inside,
)
from virnucpro.kernels.tiles import LinearTiles

#: More tokens than a tile has rows and no multiple of them.
LENGTHS = [37, 5, 1, 30]
TOKENS = sum(LENGTHS)
TILES = LinearTiles(rows=32, columns=64, depth=16, warps=4, stages=2)
SIXTEEN_BITS = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def layer(features: int, width: int, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, ...]:
    """Input, scale, weight, shift and bias; rows, columns and signs of all of them differ."""
    x = 3 * random(TOKENS, width, dtype=dtype, device=device)
    scale = random(TOKENS, device=device, seed=3).abs() + 0.1
    weight = random(features, width, dtype=dtype, device=device, seed=1) * width**-0.5
    shift, bias = (random(features, device=device, seed=seed) for seed in (4, 2))
    return x, scale, weight, shift, bias


@SIXTEEN_BITS
@pytest.mark.parametrize(("width", "features"), [(16, 64), (48, 192), (32, 72)])
def test_gelu_inside(kernel_device: str, dtype: torch.dtype, width: int, features: int) -> None:
    given = layer(features, width, dtype, kernel_device)
    truth = scaled_linear_gelu_ref(*(each.double() for each in given))
    assert_as_accurate(scaled_linear_gelu(*given, tiles=TILES), scaled_linear_gelu_ref(*given), truth, dtype)


@SIXTEEN_BITS
@pytest.mark.parametrize(("heads", "head_dim"), [(4, 16), (2, 64), (4, 24), (3, 16), (1, 128)])
def test_rotary_inside(kernel_device: str, dtype: torch.dtype, heads: int, head_dim: int) -> None:
    """Tiles that hold several heads, a part of one, heads of no power of two, and queries, keys and values at once."""
    width = heads * head_dim
    given = layer(3 * width, width, dtype, kernel_device)
    rotation = rotation_of(LENGTHS, head_dim // 2, kernel_device)
    truth = scaled_linear_rotary_ref(*(each.double() for each in given), rotation)
    twin, ours = scaled_linear_rotary_ref(*given, rotation), scaled_linear_rotary(*given, rotation, tiles=TILES)
    assert_as_accurate(ours, twin, truth, dtype)


def test_it_is_the_layer_on_normalised_rows() -> None:
    """Of rows that lack a part, with the norm's gain and offset folded in, in fp64."""
    width, features = 48, 64
    x, lack = 3 * random(TOKENS, width).double() + 1, random(width, seed=5).double()
    gain, offset = (random(width, seed=seed).double() for seed in (6, 7))
    weight, bias = random(features, width, seed=8).double(), random(features, seed=9).double()
    folded, folded_bias = fold_norm(weight, bias, gain, offset)
    ours = scaled_linear_gelu_ref(x, row_scale_ref(x, lack), folded, folded @ lack, folded_bias)
    normalised = add_layer_norm_ref(x, None, gain, offset, shift_D=lack)
    truth = torch.nn.functional.gelu(normalised @ weight.T + bias)
    torch.testing.assert_close(ours, truth)


@SIXTEEN_BITS
def test_what_is_not_finite_does_not_vanish(kernel_device: str, dtype: torch.dtype) -> None:
    given = layer(64, 16, dtype, kernel_device)
    given[0][3] = float("nan")
    given[0][5, 0] = float("inf")
    given[1][7] = float("nan")
    found = scaled_linear_gelu(*given, tiles=TILES).isfinite().all(1)
    assert found.nonzero().ravel().tolist() == [row for row in range(TOKENS) if row not in (3, 5, 7)]


def test_a_row_does_not_depend_on_those_beside_it(kernel_device: str) -> None:
    x, scale, *rest = layer(64, 48, torch.float16, kernel_device)
    whole = scaled_linear_gelu(x, scale, *rest, tiles=TILES)
    # NumPy's products, of which the interpreter's are made, round by a row's place on some processors.
    bound = 0 if kernel_device == "cuda" else 2e-3
    for first, last in ((0, 1), (11, 50), (40, TOKENS)):
        part = scaled_linear_gelu(x[first:last].contiguous(), scale[first:last].contiguous(), *rest, tiles=TILES)
        torch.testing.assert_close(part, whole[first:last], rtol=bound, atol=bound)


def test_only_widths_that_its_tiles_divide_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[320, 128, 128, 32, 4, 4], [1280, 128, 256, 64, 8, 3]]
    monkeypatch.setattr(tables, "read_table", lambda kernel: {"default": rows})
    found = {width: tables.linear_tiles(torch.empty(0, width)) for width in (64, 320, 321, 480, 640, 1280, 2560)}
    narrow, wide = (LinearTiles(*row[1:]) for row in rows)
    assert found == {64: narrow, 320: narrow, 321: None, 480: None, 640: wide, 1280: wide, 2560: None}


def test_neither_fp32_nor_a_cpu_has_it() -> None:
    for dtype in (torch.float16, torch.float32):
        assert not scales_inside(torch.empty(2, 64, dtype=dtype))
