"""The layers of `fused_linear` with e4m3 operands: on Hopper nothing but products and attention is left of a layer.

The residual stream stays in bf16; whoever adds to it leaves an e4m3 copy of it as well, which the next product reads.
A row of the copy is scaled by the root mean square that the row had *before* the addition, since the new one is known
only when all of its columns are: e4m3 is a floating-point format, so that its error hardly depends on the scale, and
with that root mean square at `STREAM_RMS` a row may grow 1,792 times before its copy is cut off.

The activation between the feed-forward products has one scale a layer (`hidden_factor`), chosen so that no input
exceeds the largest e4m3 number: a normalised row has at most the length √D.

Shapes: T tokens, D embedding width, F feed-forward width, P positions of the table, H half of the head dimension.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F

from virnucpro.kernels import hopper_linear
from virnucpro.kernels.device import uses_hopper
from virnucpro.kernels.fp8_linear import E4M3_MAX, Quantised, restored
from virnucpro.kernels.fused_linear import chunks_of, row_moments_ref, row_statistics_ref, turn_pairs_
from virnucpro.kernels.high_low import HighLow
from virnucpro.kernels.hopper_epilogue import GELU, RESIDUAL, ROTARY
from virnucpro.kernels.rotary import Rotation

STREAM_RMS: Final = 0.25


def _cut_off(wide: torch.Tensor) -> torch.Tensor:
    """e4m3 as the GPU rounds to it: what is too large becomes the largest number, NaN stays."""
    return wide.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def quantise_stream(x_TD: torch.Tensor, statistics: torch.Tensor, eps: float = 1e-5) -> Quantised:
    """The e4m3 copy of a residual stream, (T, D) values and (T, 1) scales, by statistics of now or of before."""
    scale_T1 = (statistics[1].sum(0) / x_TD.shape[1] + eps).sqrt()[:, None] / STREAM_RMS
    return _cut_off(x_TD.float() / scale_T1), scale_T1


def hidden_factor(weight_FD: torch.Tensor, bias_F: torch.Tensor) -> float:
    """What the feed-forward activation is multiplied by in e4m3: half of what the Cauchy-Schwarz bound allows.

    The other half is room for the rounding of the operands. Without contents, of a weight that no kernel will read, 1.
    """
    if weight_FD.is_meta:
        return 1.0
    bound = (weight_FD.float().norm(dim=1) * weight_FD.shape[1] ** 0.5 + bias_F.float().abs()).max()
    return float(0.5 * E4M3_MAX / bound)


def _product_of_normalised_ref(
    x: Quantised, statistics: torch.Tensor, weight: Quantised, bias_F: torch.Tensor, eps: float
) -> torch.Tensor:
    _, deviation_T = row_moments_ref(statistics, x[0].shape[1], eps)
    return F.linear(restored(x) / deviation_T[:, None], restored(weight), bias_F.float())


def fp8_norm_linear_rotary_ref(
    x: Quantised,
    statistics: torch.Tensor,
    weight: Quantised,
    bias_3D: torch.Tensor,
    rotation: Rotation,
    eps: float = 1e-5,
) -> torch.Tensor:
    """`fp8_norm_linear_rotary` in plain PyTorch."""
    qkv_T3D = _product_of_normalised_ref(x, statistics, weight, bias_3D, eps)
    turn_pairs_(qkv_T3D[:, : 2 * x[0].shape[1]], rotation)
    return qkv_T3D.bfloat16()


def fp8_norm_linear_rotary(
    x: Quantised,
    statistics: torch.Tensor,
    weight: Quantised,
    bias_3D: torch.Tensor,
    rotation: Rotation,
    eps: float = 1e-5,
) -> torch.Tensor:
    """``LN(x) Wᵀ + b`` with queries and keys turned; gain and offset are folded into the weight by `fold_norm`.

    Args:
        x: e4m3 copy of the residual stream, (T, D) and (T, 1).
        statistics: of the stream's rows.
        weight: folded weight in `interleave_pairs` order, (3D, D) e4m3 and (3D, 1).
        bias_3D: folded bias, fp32.
        rotation: of its tokens.
        eps: the LayerNorm's.

    Returns:
        (T, 3D) bf16.
    """
    if not uses_hopper(x[0]):
        return fp8_norm_linear_rotary_ref(x, statistics, weight, bias_3D, rotation, eps)
    qkv_T3D = x[0].new_empty((x[0].shape[0], weight[0].shape[0]), dtype=torch.bfloat16)
    hopper_linear.launch(
        HighLow(x[0]), HighLow(weight[0]), bias_3D, HighLow(qkv_T3D), ROTARY, statistics=statistics,
        rotation=rotation, eps=eps, weight_scale_N=weight[1], row_scale_M=x[1],
    )  # fmt: skip
    return qkv_T3D


def fp8_norm_linear_gelu_ref(
    x: Quantised, statistics: torch.Tensor, weight: Quantised, bias_F: torch.Tensor, factor: float, eps: float = 1e-5
) -> torch.Tensor:
    """`fp8_norm_linear_gelu` in plain PyTorch."""
    return _cut_off(factor * F.gelu(_product_of_normalised_ref(x, statistics, weight, bias_F, eps)))


def fp8_norm_linear_gelu(
    x: Quantised, statistics: torch.Tensor, weight: Quantised, bias_F: torch.Tensor, factor: float, eps: float = 1e-5
) -> torch.Tensor:
    """``factor * gelu(LN(x) Wᵀ + b)`` in e4m3, (T, F); arguments as for `fp8_norm_linear_rotary`."""
    if not uses_hopper(x[0]):
        return fp8_norm_linear_gelu_ref(x, statistics, weight, bias_F, factor, eps)
    out_TF = x[0].new_empty((x[0].shape[0], weight[0].shape[0]))
    hopper_linear.launch(
        HighLow(x[0]), HighLow(weight[0]), bias_F, HighLow(out_TF), GELU, statistics=statistics, eps=eps,
        weight_scale_N=weight[1], row_scale_M=x[1], factor=factor,
    )  # fmt: skip
    return out_TF


def fp8_linear_residual_ref_(
    x_TD: torch.Tensor,
    copy: Quantised,
    earlier: torch.Tensor,
    h_TF: torch.Tensor,
    weight_DF: torch.Tensor,
    scale_D1: torch.Tensor | None,
    bias_D: torch.Tensor,
    eps: float = 1e-5,
) -> torch.Tensor:
    """`fp8_linear_residual_` in plain PyTorch."""
    weight = weight_DF.float() if scale_D1 is None else weight_DF.float() * scale_D1
    total_TD = x_TD.float() + F.linear(h_TF.float(), weight, bias_D.float())
    x_TD.copy_(total_TD)
    for part, new in zip(copy, quantise_stream(total_TD, earlier, eps), strict=True):
        part.copy_(new)
    return row_statistics_ref(total_TD)


def fp8_linear_residual_(
    x_TD: torch.Tensor,
    copy: Quantised,
    earlier: torch.Tensor,
    h_TF: torch.Tensor,
    weight_DF: torch.Tensor,
    scale_D1: torch.Tensor | None,
    bias_D: torch.Tensor,
    eps: float = 1e-5,
) -> torch.Tensor:
    """``x += h Wᵀ + b`` in place, and the e4m3 copy of ``x`` anew; returns the statistics of the new rows.

    Args:
        x_TD: bf16 residual stream, contiguous.
        copy: its e4m3 copy, overwritten, values and scales.
        earlier: statistics of ``x_TD`` as it comes, in `chunks_of` chunks.
        h_TF: input in bf16 or e4m3.
        weight_DF: weight, same dtype.
        scale_D1: fp32 factors of an e4m3 weight's rows, over the factor that an e4m3 ``h_TF`` was multiplied by.
        bias_D: fp32 bias.
        eps: added to the mean square of a row.

    Returns:
        (2, chunks, T) fp32 sums and sums of squares.
    """
    if not uses_hopper(x_TD):
        return fp8_linear_residual_ref_(x_TD, copy, earlier, h_TF, weight_DF, scale_D1, bias_D, eps)
    statistics = x_TD.new_empty((2, chunks_of(x_TD.shape[1]), x_TD.shape[0]), dtype=torch.float32)
    assert earlier.shape == statistics.shape
    hopper_linear.launch(
        HighLow(h_TF), HighLow(weight_DF), bias_D, HighLow(x_TD), RESIDUAL, statistics=statistics, eps=eps,
        weight_scale_N=scale_D1, row_scale_M=copy[1], factor=STREAM_RMS, copy_MN=copy[0], earlier=earlier,
    )  # fmt: skip
    return statistics
