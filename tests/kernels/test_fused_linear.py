from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from kernel_reference import EPSILON, assert_as_accurate, random, relative_error, rotation_of, tables

from virnucpro.kernels.fused_linear import (
    fold_norm,
    interleave_pairs,
    linear_residual_,
    linear_residual_ref_,
    norm_linear_gelu,
    norm_linear_gelu_ref,
    norm_linear_rotary,
    norm_linear_rotary_ref,
    row_statistics,
    row_statistics_ref,
)
from virnucpro.kernels.high_low import HighLow
from virnucpro.kernels.hopper_epilogue import ends_with_piece
from virnucpro.kernels.rotary import Rotation, rotary_ref_

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
LENGTHS = [37, 130, 3]
TOKENS = sum(LENGTHS)


def stream(width: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    return (3 * random(TOKENS, width) + 0.5).to(device, dtype)


def folded(outputs: int, width: int, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    weight, bias = random(outputs, width, seed=1) * width**-0.5, random(outputs, seed=2)
    weight, bias = fold_norm(weight, bias, 1 + 0.3 * random(width, seed=3), random(width, seed=4))
    return weight.to(device, dtype), bias.to(device)


def test_fold_norm_leaves_the_layer_as_it_was() -> None:
    width = 30
    x, weight, bias = random(9, width).double() + 2, random(7, width, seed=1).double(), random(7, seed=2).double()
    gain, offset = random(width, seed=3).double(), random(width, seed=4).double()
    expected = F.linear(F.layer_norm(x, (width,), gain, offset), weight, bias)
    new_weight, new_bias = fold_norm(weight, bias, gain, offset)
    deviation = (x.var(1, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(x @ new_weight.T / deviation[:, None] + new_bias, expected)


def test_interleaved_queries_and_keys_give_the_same_logits() -> None:
    heads, head_dim, width = 3, 8, 24
    x, weight = random(11, width).double(), random(3 * width, width, seed=1).double()
    cos, sin = tables(11, head_dim // 2)
    statistics = row_statistics_ref(x)
    turned = torch.cat([*(interleave_pairs(part, heads) for part in weight[: 2 * width].split(width)), weight[-width:]])
    zeros = torch.zeros(3 * width).double()
    rotation = Rotation(torch.arange(11), cos, sin)
    ours, _ = norm_linear_rotary_ref(HighLow(x), statistics, HighLow(turned), zeros, rotation)
    plain = F.linear(F.layer_norm(x, (width,)), weight)
    rotary_ref_(plain, rotation, heads)
    logits = [torch.einsum("qnh,knh->nqk", *qkv.view(11, 3, heads, head_dim)[:, :2].unbind(1)) for qkv in (ours, plain)]
    torch.testing.assert_close(*logits)
    torch.testing.assert_close(ours[:, 2 * width :], plain[:, 2 * width :])


def test_row_statistics(kernel_device: str) -> None:
    x = stream(131, torch.float16, kernel_device)
    assert relative_error(row_statistics(x), row_statistics_ref(x.double())) <= 1e-6


def in_fp64(parts: HighLow) -> HighLow:
    return HighLow(parts.high.double() if parts.low is None else parts.high.double() + parts.low.double())


@PRECISIONS
@pytest.mark.parametrize("width", [320, 96])
def test_norm_linear_gelu(kernel_device: str, dtype: torch.dtype, width: int) -> None:
    x = stream(width, dtype, kernel_device)
    weight, bias = folded(4 * width, width, dtype, kernel_device)
    statistics = row_statistics(x)
    arguments = HighLow(x), statistics, HighLow(weight), bias
    truth = norm_linear_gelu_ref(HighLow(x.double()), row_statistics_ref(x.double()), in_fp64(HighLow(weight)), bias)
    assert_as_accurate(norm_linear_gelu(*arguments), norm_linear_gelu_ref(*arguments), truth, dtype)


@PRECISIONS
@pytest.mark.parametrize(("heads", "head_dim"), [(20, 16), (3, 24), (4, 24), (20, 24), (3, 32), (5, 64), (2, 128)])
def test_norm_linear_rotary(kernel_device: str, dtype: torch.dtype, heads: int, head_dim: int) -> None:
    width = heads * head_dim
    x = stream(width, dtype, kernel_device)
    weight, bias = folded(3 * width, width, dtype, kernel_device)
    rotation = rotation_of(LENGTHS, head_dim // 2, kernel_device)
    arguments = HighLow(x), row_statistics(x), HighLow(weight), bias, rotation
    truth = norm_linear_rotary_ref(
        HighLow(x.double()), row_statistics_ref(x.double()), in_fp64(HighLow(weight)), bias, rotation
    )
    turned, low = norm_linear_rotary(*arguments)
    assert low is None
    assert_as_accurate(turned, norm_linear_rotary_ref(*arguments).high, truth.high, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("heads", "head_dim"), [(20, 16), (20, 32)])
def test_low_parts_hold_what_rounding_took(kernel_device: str, dtype: torch.dtype, heads: int, head_dim: int) -> None:
    width = heads * head_dim
    # Rows that the 16-bit norm of the twin leaves as they are, so that only the output is rounded.
    x = torch.where(random(TOKENS, width) > 0, 1.0, -1.0).to(kernel_device, dtype)
    x[:, 1::2] = -x[:, ::2]
    weight, bias = folded(3 * width, width, dtype, kernel_device)
    rotation = rotation_of(LENGTHS, head_dim // 2, kernel_device)
    arguments = HighLow(x), row_statistics(x), HighLow(weight), bias, rotation
    truth, _ = norm_linear_rotary_ref(
        HighLow(x.double()), row_statistics_ref(x.double()), in_fp64(HighLow(weight)), bias, rotation
    )
    turned, low = norm_linear_rotary(*arguments, low_parts=True)
    assert low is not None
    assert torch.equal(turned, norm_linear_rotary(*arguments).high)
    whole = turned[:, : 2 * width].double() + low.double()
    assert relative_error(turned[:, : 2 * width], truth[:, : 2 * width]) > 20 * relative_error(
        whole, truth[:, : 2 * width]
    )


@PRECISIONS
@pytest.mark.parametrize(("width", "features"), [(320, 320), (320, 1280), (96, 384)])
def test_linear_residual(kernel_device: str, dtype: torch.dtype, width: int, features: int) -> None:
    x = stream(width, dtype, kernel_device)
    hidden = random(TOKENS, features, dtype=dtype, device=kernel_device, seed=5)
    weight = random(width, features, dtype=dtype, device=kernel_device, seed=6) * features**-0.5
    bias = random(width, device=kernel_device, seed=7)
    ours, twin, truth = (HighLow(x.clone()), HighLow(x.clone()), HighLow(x.double()))
    statistics = linear_residual_(ours, hidden, HighLow(weight), bias)
    linear_residual_ref_(twin, hidden, HighLow(weight), bias)
    linear_residual_ref_(truth, hidden.double(), in_fp64(HighLow(weight)), bias)
    assert_as_accurate(ours.high, twin.high, truth.high, dtype)
    assert relative_error(statistics.sum(1), row_statistics_ref(truth.high).sum(1)) <= EPSILON[dtype]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [320, 96])
def test_products_count_the_bits_of_low_parts(kernel_device: str, dtype: torch.dtype, width: int) -> None:
    """With low parts of stream and weight, the queries' own high and low parts have nearly twice the bits."""
    x = HighLow.of(stream(width, torch.float32, kernel_device), dtype)
    weight, bias = folded(3 * width, width, torch.float32, kernel_device)
    weights = HighLow.of(weight, dtype)
    rotation = rotation_of(LENGTHS, 8, kernel_device)
    exact = in_fp64(x)
    truth, _ = norm_linear_rotary_ref(exact, row_statistics_ref(exact.high), in_fp64(weights), bias, rotation)

    def error(stream: HighLow, matrix: HighLow) -> float:
        turned, low = norm_linear_rotary(stream, row_statistics(x.wide()), matrix, bias, rotation, low_parts=True)
        assert low is not None
        queries = slice(0, 2 * width)
        return relative_error(turned[:, queries].double() + low.double(), truth[:, queries])

    whole = error(x, weights)
    assert error(HighLow(x.high), weights) > 20 * whole
    assert error(x, HighLow(weights.high)) > 20 * whole


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("width", "features"), [(320, 1280), (96, 384)])
def test_residual_in_two_parts(kernel_device: str, dtype: torch.dtype, width: int, features: int) -> None:
    x = HighLow.of(stream(width, torch.float32, kernel_device), dtype)
    assert x.low is not None
    hidden = random(TOKENS, features, dtype=dtype, device=kernel_device, seed=5)
    weight = HighLow.of((random(width, features, seed=6) * features**-0.5).to(kernel_device), dtype)
    bias = random(width, device=kernel_device, seed=7)
    truth, alone = in_fp64(x), HighLow(x.high.clone())
    linear_residual_ref_(truth, hidden.double(), in_fp64(weight), bias)
    statistics = linear_residual_(x, hidden, weight, bias)
    linear_residual_(alone, hidden, HighLow(weight.high), bias)
    whole = relative_error(in_fp64(x).high, truth.high)
    assert relative_error(alone.high, truth.high) > 20 * whole
    assert whole <= EPSILON[dtype] ** 2 + 4 * EPSILON[torch.float32]
    assert relative_error(statistics.sum(1), row_statistics_ref(truth.high).sum(1)) <= 1e-5


def test_a_piece_holds_turned_columns_alone_or_low_parts_are_refused() -> None:
    out = torch.zeros(1, 96)
    assert ends_with_piece(960, 64, HighLow(out, out))
    assert not ends_with_piece(96, 64, HighLow(out))
    with pytest.raises(ValueError, match="a multiple of 64"):
        ends_with_piece(96, 64, HighLow(out, out))
