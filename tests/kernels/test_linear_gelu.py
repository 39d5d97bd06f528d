from __future__ import annotations

import math

import pytest
import torch
from kernel_reference import assert_as_accurate, random

from virnucpro.kernels.linear_gelu import gelu_, linear_gelu, linear_gelu_ref


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("tokens", "width", "features"), [(1, 16, 8), (37, 131, 67)])
def test_linear_gelu(kernel_device: str, dtype: torch.dtype, tokens: int, width: int, features: int) -> None:
    x = random(tokens, width, dtype=dtype, device=kernel_device)
    weight = random(features, width, dtype=dtype, device=kernel_device, seed=1) * width**-0.5
    bias = random(features, dtype=dtype, device=kernel_device, seed=2)
    truth = linear_gelu_ref(x.double(), weight.double(), bias.double())
    assert_as_accurate(linear_gelu(x, weight, bias), linear_gelu_ref(x, weight, bias), truth, dtype)


def test_gelu_everywhere(kernel_device: str) -> None:
    """Within 1.4 times half a unit of fp16, which rounding alone takes, or what the clamped tail leaves."""
    x = torch.cat([torch.linspace(-30, 30, 6001), torch.linspace(-5, 5, 6001)]).to(kernel_device, torch.float16)
    wide = x.double().cpu()
    truth = wide * 0.5 * torch.tensor([math.erfc(-value / math.sqrt(2)) for value in wide.tolist()]).double()
    difference = (gelu_(x.clone()).double().cpu() - truth).abs()
    assert (difference <= 5e-6 + 1.4 * 2.0**-11 * truth.abs()).all()


def test_gelu_lets_nothing_non_finite_vanish(kernel_device: str) -> None:
    for value in (float("nan"), float("inf")):
        result = gelu_(torch.full((8,), value, device=kernel_device, dtype=torch.float16))
        assert not result.isfinite().any()
