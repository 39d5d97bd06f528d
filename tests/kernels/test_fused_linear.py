from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from kernel_reference import EPSILON, assert_as_accurate, positions, random, relative_error, tables

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
from virnucpro.kernels.rotary import rotary_ref_

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
    ours, _ = norm_linear_rotary_ref(x, statistics, turned, zeros, torch.arange(11), cos, sin)
    plain = F.linear(F.layer_norm(x, (width,)), weight)
    rotary_ref_(plain, torch.arange(11), cos, sin, heads)
    logits = [torch.einsum("qnh,knh->nqk", *qkv.view(11, 3, heads, head_dim)[:, :2].unbind(1)) for qkv in (ours, plain)]
    torch.testing.assert_close(*logits)
    torch.testing.assert_close(ours[:, 2 * width :], plain[:, 2 * width :])


def test_row_statistics(kernel_device: str) -> None:
    x = stream(131, torch.float16, kernel_device)
    assert relative_error(row_statistics(x), row_statistics_ref(x.double())) <= 1e-6


@PRECISIONS
@pytest.mark.parametrize("width", [320, 96])
def test_norm_linear_gelu(kernel_device: str, dtype: torch.dtype, width: int) -> None:
    x, (weight, bias) = stream(width, dtype, kernel_device), folded(4 * width, width, dtype, kernel_device)
    statistics = row_statistics(x)
    truth = norm_linear_gelu_ref(x.double(), row_statistics_ref(x.double()), weight.double(), bias)
    twin = norm_linear_gelu_ref(x, statistics, weight, bias)
    assert_as_accurate(norm_linear_gelu(x, statistics, weight, bias), twin, truth, dtype)


@PRECISIONS
@pytest.mark.parametrize(("heads", "head_dim"), [(20, 16), (4, 24), (3, 32), (5, 64), (2, 128)])
def test_norm_linear_rotary(kernel_device: str, dtype: torch.dtype, heads: int, head_dim: int) -> None:
    width = heads * head_dim
    x, (weight, bias) = stream(width, dtype, kernel_device), folded(3 * width, width, dtype, kernel_device)
    statistics = row_statistics(x)
    rotation = (positions(LENGTHS, kernel_device), *tables(max(LENGTHS), head_dim // 2, kernel_device))
    truth, _ = norm_linear_rotary_ref(x.double(), row_statistics_ref(x.double()), weight.double(), bias, *rotation)
    twin, _ = norm_linear_rotary_ref(x, statistics, weight, bias, *rotation)
    turned, low = norm_linear_rotary(x, statistics, weight, bias, *rotation)
    assert low is None
    assert_as_accurate(turned, twin, truth, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("heads", "head_dim"), [(20, 16), (20, 32)])
def test_low_parts_hold_what_rounding_took(kernel_device: str, dtype: torch.dtype, heads: int, head_dim: int) -> None:
    width = heads * head_dim
    # Rows that the 16-bit norm of the twin leaves as they are, so that only the output is rounded.
    x = torch.where(random(TOKENS, width) > 0, 1.0, -1.0).to(kernel_device, dtype)
    x[:, 1::2] = -x[:, ::2]
    weight, bias = folded(3 * width, width, dtype, kernel_device)
    rotation = (positions(LENGTHS, kernel_device), *tables(max(LENGTHS), head_dim // 2, kernel_device))
    statistics = row_statistics(x)
    truth, _ = norm_linear_rotary_ref(x.double(), row_statistics_ref(x.double()), weight.double(), bias, *rotation)
    turned, low = norm_linear_rotary(x, statistics, weight, bias, *rotation, low_parts=True)
    assert low is not None
    plain, _ = norm_linear_rotary(x, statistics, weight, bias, *rotation)
    assert torch.equal(turned, plain)
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
    streams = x.clone(), x.clone(), x.double()
    statistics = linear_residual_(streams[0], hidden, weight, bias)
    linear_residual_ref_(streams[1], hidden, weight, bias)
    linear_residual_ref_(streams[2], hidden.double(), weight.double(), bias)
    assert_as_accurate(*streams, dtype)
    assert relative_error(statistics.sum(1), row_statistics_ref(streams[2]).sum(1)) <= EPSILON[dtype]
