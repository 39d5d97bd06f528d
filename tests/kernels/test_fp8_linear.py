from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from kernel_reference import random, relative_error

from virnucpro.kernels.device import interpreted
from virnucpro.kernels.fp8_linear import (
    Quantised,
    add_layer_norm_quantise,
    add_layer_norm_quantise_ref,
    fp8_linear,
    gelu_quantise,
    gelu_quantise_ref,
    quantise_rows,
)

#: e4m3 keeps three bits behind the leading one: half a step is at most 1/16 of a number.
HALF_STEP = 2.0**-4


def restored(quantised: Quantised) -> torch.Tensor:
    values, scale = quantised
    return values.double().cpu() * scale.double().cpu()


def test_quantised_rows_are_within_half_a_step_and_reach_the_largest_number() -> None:
    x = random(50, 96) * 10.0 ** torch.linspace(-6, 6, 50)[:, None]
    x[3] = 0.0
    values, scale = quantise_rows(x)
    # Below the normal numbers steps are even: 2^-9 of the scale.
    allowed = HALF_STEP * x.abs().double() + 2.0**-10 * scale.double()
    assert ((restored((values, scale)) - x.double()).abs() <= allowed).all()
    assert (values.float().abs().amax(1)[x.abs().amax(1) > 0] == 448).all()
    assert (restored((values, scale))[3] == 0).all()


@pytest.mark.parametrize("width", [320, 96])
@pytest.mark.parametrize("with_delta", [True, False])
def test_add_layer_norm_quantise(kernel_device: str, width: int, with_delta: bool) -> None:
    x = random(37, width, dtype=torch.float16, device=kernel_device)
    delta = random(37, width, dtype=torch.float16, device=kernel_device, seed=1) if with_delta else None
    gain, offset = (random(width, device=kernel_device, seed=seed) for seed in (2, 3))
    streams = x.clone(), x.clone()
    ours = add_layer_norm_quantise(streams[0], delta, gain, offset)
    twin = add_layer_norm_quantise_ref(streams[1], delta, gain, offset)
    torch.testing.assert_close(streams[0], streams[1])
    torch.testing.assert_close(ours[1], twin[1], rtol=1e-5, atol=0)
    if kernel_device == "cpu":
        return  # Triton's interpreter rounds e4m3 wrongly where the exponent changes, and has no NaN in it
    # A value on the edge between two steps may fall on either side.
    assert relative_error(restored(ours), restored(twin)) < 0.1 * HALF_STEP


@pytest.mark.parametrize("width", [1280, 96])
def test_gelu_quantise(kernel_device: str, width: int) -> None:
    x = 2 * random(37, width, dtype=torch.float16, device=kernel_device)
    ours, twin = gelu_quantise(x), gelu_quantise_ref(x)
    torch.testing.assert_close(ours[1], twin[1], rtol=1e-4, atol=0)
    if kernel_device == "cpu":
        return  # as above
    assert relative_error(restored(ours), restored(twin)) < 0.1 * HALF_STEP
    assert relative_error(restored(ours), F.gelu(x.double())) < HALF_STEP


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_nan_is_not_quantised_away(device: str) -> None:
    if interpreted() or (device == "cuda" and not torch.cuda.is_available()):
        pytest.skip("no NVIDIA GPU, or Triton's interpreter, whose e4m3 has no NaN")
    x = random(4, 96, dtype=torch.float16, device=device)
    x[2, 5] = float("nan")
    values, scale = gelu_quantise(x)
    assert (values.float() * scale)[2].isnan().any()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_fp8_linear(device: str) -> None:
    if device == "cuda" and not (torch.cuda.is_available() and torch.cuda.get_device_capability() >= (9, 0)):
        pytest.skip("no Hopper or later GPU")
    x, weight = random(130, 320, device=device), random(960, 320, device=device, seed=1)
    bias = random(960, dtype=torch.bfloat16, device=device, seed=2)
    quantised = quantise_rows(x), quantise_rows(weight)
    truth = F.linear(restored(quantised[0]), restored(quantised[1]), bias.double().cpu())
    out = fp8_linear(*quantised, bias)
    assert out.dtype == torch.bfloat16
    assert relative_error(out, truth) < 2.0**-7
    assert relative_error(out, F.linear(x.double(), weight.double(), bias.double())) < HALF_STEP
