from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from kernel_reference import random, relative_error, rotation_of

from virnucpro.kernels.device import interpreted
from virnucpro.kernels.fp8_linear import Quantised, quantise_rows, restored
from virnucpro.kernels.fused_fp8 import (
    STREAM_RMS,
    fp8_linear_residual_,
    fp8_linear_residual_ref_,
    fp8_norm_linear_gelu,
    fp8_norm_linear_gelu_ref,
    fp8_norm_linear_rotary,
    fp8_norm_linear_rotary_ref,
    hidden_factor,
    quantise_stream,
)
from virnucpro.kernels.fused_linear import chunks_of, fold_norm, row_statistics
from virnucpro.kernels.rotary import rotary_ref_

#: e4m3 keeps three bits behind the leading one: half a step is at most 1/16 of a number.
HALF_STEP = 2.0**-4
#: bf16 rounds to half of 1/128 at most.
BFLOAT16 = 2.0**-7
LENGTHS = [37, 130, 3]
TOKENS = sum(LENGTHS)
WIDTHS = pytest.mark.parametrize("width", [320, 96, 1280])


@pytest.fixture
def hopper() -> str:
    if interpreted() or not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("no Hopper GPU")
    return "cuda"


class Sublayer:
    """A residual stream with rows of very different size, and a linear layer after its LayerNorm."""

    def __init__(self, width: int, outputs: int, device: str) -> None:
        self.x = ((random(TOKENS, width) + 0.2) * 10.0 ** torch.linspace(-2, 3, TOKENS)[:, None]).to(device).bfloat16()
        self.statistics = row_statistics(self.x, chunks_of(width))
        self.copy = quantise_stream(self.x, self.statistics)
        self.gain, self.offset = 1 + 0.3 * random(width, seed=3).to(device), random(width, seed=4).to(device)
        self.plain = (random(outputs, width, seed=1) * width**-0.5).to(device), random(outputs, seed=2).to(device)
        weight, self.bias = fold_norm(*self.plain, self.gain, self.offset)
        self.folded = weight
        self.weight = quantise_rows(weight)

    def exact(self) -> torch.Tensor:
        """The layer without any quantising."""
        wide = self.x.double()
        normalised = F.layer_norm(wide, wide.shape[1:], self.gain.double(), self.offset.double())
        return F.linear(normalised, *(part.double() for part in self.plain))


@WIDTHS
def test_copy_of_the_stream_is_within_half_a_step(width: int) -> None:
    layer = Sublayer(width, 8, "cpu")
    values, _ = layer.copy
    assert values.dtype == torch.float8_e4m3fn
    assert relative_error(restored(layer.copy), layer.x) < HALF_STEP / 2
    torch.testing.assert_close(
        values.float().square().mean(1).sqrt(), torch.full((TOKENS,), STREAM_RMS), rtol=0.1, atol=0
    )


def test_hidden_factor_lets_no_normalised_row_exceed_e4m3() -> None:
    width = 96
    weight, bias = random(4 * width, width), random(4 * width, seed=1)
    weight[7] *= 50
    factor = hidden_factor(weight, bias)
    worst = F.normalize(weight[7], dim=0) * width**0.5
    reached = factor * F.gelu(F.linear(worst, weight, bias)).max()
    assert 448 / 2 * 0.9 < reached <= 448 / 2


@WIDTHS
def test_twins_are_the_plain_layers(width: int) -> None:
    """Quantising a row and a column costs at most half a step each; most elements lose far less."""
    layer = Sublayer(width, 4 * width, "cpu")
    factor = hidden_factor(layer.folded, layer.bias)
    hidden = fp8_norm_linear_gelu_ref(layer.copy, layer.statistics, layer.weight, layer.bias, factor)
    assert hidden.dtype == torch.float8_e4m3fn
    assert relative_error(hidden.float() / factor, F.gelu(layer.exact())) < HALF_STEP
    layer = Sublayer(width, 3 * width, "cpu")
    rotation = rotation_of(LENGTHS, 8)
    qkv = fp8_norm_linear_rotary_ref(layer.copy, layer.statistics, layer.weight, layer.bias, rotation)
    expected = layer.exact()
    rotary_ref_(expected, rotation, heads=width // 16, adjacent=True)
    assert relative_error(qkv, expected) < HALF_STEP


@WIDTHS
def test_fp8_norm_linear_gelu(hopper: str, width: int) -> None:
    layer = Sublayer(width, 4 * width, hopper)
    factor = hidden_factor(layer.folded, layer.bias)
    arguments = layer.copy, layer.statistics, layer.weight, layer.bias, factor
    ours, twin = fp8_norm_linear_gelu(*arguments).float(), fp8_norm_linear_gelu_ref(*arguments).float()
    # A value on the edge between two steps may fall on either side.
    assert relative_error(ours, twin) < 0.2 * HALF_STEP
    assert relative_error(ours / factor, F.gelu(layer.exact())) < HALF_STEP


@pytest.mark.parametrize(("heads", "head_dim"), [(20, 16), (4, 24), (3, 32), (20, 64), (2, 128)])
def test_fp8_norm_linear_rotary(hopper: str, heads: int, head_dim: int) -> None:
    layer = Sublayer(heads * head_dim, 3 * heads * head_dim, hopper)
    rotation = rotation_of(LENGTHS, head_dim // 2, hopper)
    arguments = layer.copy, layer.statistics, layer.weight, layer.bias, rotation
    assert relative_error(fp8_norm_linear_rotary(*arguments), fp8_norm_linear_rotary_ref(*arguments)) < BFLOAT16


@pytest.mark.parametrize("width", [320, 96, 1280])
@pytest.mark.parametrize("quantised", [True, False])
def test_fp8_linear_residual(hopper: str, width: int, quantised: bool) -> None:
    layer, features = Sublayer(width, 8, hopper), 4 * width
    hidden = random(TOKENS, features, seed=5).to(hopper)
    matrix = (random(width, features, seed=6) * features**-0.5).to(hopper)
    bias = random(width, device=hopper, seed=7)
    if quantised:
        h, (weight, scale) = hidden.to(torch.float8_e4m3fn), quantise_rows(matrix)
    else:
        h, weight, scale = hidden.bfloat16(), matrix.bfloat16(), None
    results = []
    for function in (fp8_linear_residual_, fp8_linear_residual_ref_):
        x, copy = layer.x.clone(), tuple(part.clone() for part in layer.copy)
        statistics = function(x, copy, layer.statistics, h, weight, scale, bias)
        results.append((x, copy, statistics.sum(1)))
    (x, copy, statistics), (twin_x, twin_copy, twin_statistics) = results
    assert relative_error(x, twin_x) < BFLOAT16
    assert relative_error(statistics, twin_statistics) < BFLOAT16
    torch.testing.assert_close(copy[1], twin_copy[1], rtol=1e-5, atol=0)
    assert relative_error(restored(copy), restored(twin_copy)) < 0.2 * HALF_STEP
    assert relative_error(restored(copy), twin_x) < HALF_STEP


@pytest.mark.parametrize("device", ["cpu", "hopper"])
def test_what_is_not_finite_stays_in_the_stream(request: pytest.FixtureRequest, device: str) -> None:
    device = request.getfixturevalue("hopper") if device == "hopper" else device
    layer = Sublayer(96, 8, device)
    layer.x[5, 7] = float("inf")
    layer.x[9, 3] = float("nan")
    earlier = row_statistics(layer.x, chunks_of(96))
    copy: Quantised = quantise_stream(layer.x, earlier)
    hidden = random(TOKENS, 96, device=device).bfloat16()
    fp8_linear_residual_(layer.x, copy, earlier, hidden, hidden[:96].contiguous(), None, random(96, device=device))
    spoilt = (~layer.x.float().isfinite()).any(1).nonzero().flatten().tolist()
    assert spoilt == [5, 9]
