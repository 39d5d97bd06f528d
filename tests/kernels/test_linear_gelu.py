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
    x = torch.linspace(-30, 30, 6001).to(kernel_device, torch.float16)
    wide = x.double().cpu()
    truth = wide * 0.5 * torch.tensor([math.erfc(-value / math.sqrt(2)) for value in wide.tolist()]).double()
    difference = (gelu_(x.clone()).double().cpu() - truth).abs()
    assert (difference <= 5e-5 + 2.0**-11 * truth.abs()).all()


def test_gelu_near_zero_keeps_16_bit_accuracy_and_nan(kernel_device: str) -> None:
    x = torch.linspace(-3, 3, 6001).to(kernel_device, torch.float16)
    wide = x.double().cpu()
    truth = wide * 0.5 * torch.tensor([math.erfc(-value / math.sqrt(2)) for value in wide.tolist()]).double()
    difference = (gelu_(x.clone()).double().cpu() - truth).abs()
    assert (difference <= 2e-6 + 2.0**-11 * truth.abs()).all()
    assert gelu_(torch.full((8,), float("nan"), device=kernel_device, dtype=torch.float16)).isnan().all()
