# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The linear layers of a pre-LayerNorm transformer with what stands around them: three calls and attention are a layer.

The LayerNorm is inside the linear layer that follows it. With its gain g and offset o folded into the layer's weight
and bias by `fold_norm`, and each row of the weight brought to mean zero, the layer of the normalised x is

    LN(x) Wᵀ + b = (x W'ᵀ) / deviation(x) + b'

so the product runs on the residual stream itself, and the rows' deviations come from the sums that the layer before
left behind. The residual stream is then read and written once a sublayer, and no normalised copy of it exists.

Rotary pairs are neighbours here (elements 2i and 2i+1 of a head): `interleave_pairs` brings the rows of the query and
key weights into that order. Attention does not see it, for queries and keys are permuted alike.

The residual stream and the weights come as `HighLow`: a low part makes the products count its bits as well.

Shapes: T tokens, D embedding width, F feed-forward width, P positions of the table, H half of the head dimension.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from virnucpro.kernels import hopper_linear
from virnucpro.kernels.device import jit, launch_guard, tl, triton, uses_hopper, uses_triton
from virnucpro.kernels.high_low import HighLow
from virnucpro.kernels.hopper_epilogue import GELU, RESIDUAL, ROTARY
from virnucpro.kernels.launching import launcher
from virnucpro.kernels.rotary import Rotation


def fold_norm(
    weight: torch.Tensor, bias: torch.Tensor, gain_D: torch.Tensor, offset_D: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias, in the input's precision or fp32, of the layer on ``x / deviation(x)`` in place of ``LN(x)``."""
    compute = torch.promote_types(weight.dtype, torch.float32)
    wide = weight.to(compute)
    folded = wide * gain_D.to(compute)
    return folded - folded.mean(dim=1, keepdim=True), bias.to(compute) + wide @ offset_D.to(compute)


def interleave_pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows (or a bias) of a query or key projection, with elements i and i + head_dim/2 of each head as neighbours."""
    pairs = weight.reshape(heads, 2, weight.shape[0] // (2 * heads), *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)


def chunks_of(width: int, *, low: bool = False) -> int:
    """Chunks of the statistics that the kernel behind `linear_residual_` writes, of a stream with or without ``low``
    part."""
    return -(-width // (hopper_linear.LOW_RESIDUAL_BLOCK_N if low else hopper_linear.BLOCK_N))


@functools.partial(jit, do_not_specialize=("T",))
def _row_statistics_kernel(X_ptr, Statistics_ptr, T, chunks, D: tl.constexpr, BLOCK_D: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK_D)
    x = tl.load(X_ptr + row * D + column, mask=column < D, other=0.0).to(tl.float32)
    tl.store(Statistics_ptr + row, tl.sum(x, 0))
    tl.store(Statistics_ptr + T * chunks + row, tl.sum(x * x, 0))


def row_statistics_ref(x_TD: torch.Tensor, chunks: int = 1) -> torch.Tensor:
    """`row_statistics` in plain PyTorch."""
    wide = x_TD.to(torch.promote_types(x_TD.dtype, torch.float32))
    sums = torch.stack((wide.sum(1), wide.square().sum(1)))[:, None]
    return F.pad(sums, (0, 0, 0, chunks - 1))


def row_statistics(x_TD: torch.Tensor, chunks: int = 1) -> torch.Tensor:
    """(2, chunks, T) fp32: sum and sum of squares of each row in the first chunk, zeros in the others.

    With as many chunks as `linear_residual_` gives, the first layer's kernels are the other layers'.
    """
    if not uses_triton(x_TD):
        return row_statistics_ref(x_TD, chunks)
    tokens, width = x_TD.shape
    statistics = x_TD.new_zeros((2, chunks, tokens), dtype=torch.float32)
    with launch_guard(x_TD):
        launcher(_row_statistics_kernel, (tokens,))(
            x_TD, statistics, tokens, chunks, width, triton.next_power_of_2(width), num_warps=4
        )
    return statistics


def row_moments_ref(statistics: torch.Tensor, width: int, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each row, (T,), out of the sums of its ``width`` elements."""
    mean_T, square_T = statistics.sum(1) / width
    return mean_T, (square_T - mean_T.square()).clamp_min(0).add(eps).sqrt()


def _product_of_normalised_ref(
    x_TD: HighLow, statistics: torch.Tensor, weight_FD: HighLow, bias_F: torch.Tensor, eps: float
) -> torch.Tensor:
    """In fp32; of operands without low parts as a product of 16-bit numbers gives it."""
    mean, deviation = row_moments_ref(statistics, x_TD.high.shape[1], eps)
    normalised = (x_TD.wide() - mean[:, None]) / deviation[:, None]
    if x_TD.low is None:
        normalised = normalised.to(x_TD.high.dtype).to(normalised.dtype)
    return F.linear(normalised, weight_FD.wide().to(normalised.dtype), bias_F.to(normalised.dtype))


def norm_linear_gelu_ref(
    x_TD: HighLow, statistics: torch.Tensor, weight_FD: HighLow, bias_F: torch.Tensor, eps: float = 1e-5
) -> torch.Tensor:
    """`norm_linear_gelu` in plain PyTorch."""
    return F.gelu(_product_of_normalised_ref(x_TD, statistics, weight_FD, bias_F, eps)).to(x_TD.high.dtype)


def norm_linear_gelu(
    x_TD: HighLow, statistics: torch.Tensor, weight_FD: HighLow, bias_F: torch.Tensor, eps: float = 1e-5
) -> torch.Tensor:
    """``gelu(LN(x) Wᵀ + b)`` with the LayerNorm's gain and offset folded into the weight by `fold_norm`.

    Args:
        x_TD: residual stream, contiguous.
        statistics: of ``x_TD``'s rows, from `row_statistics` or `linear_residual_`.
        weight_FD: folded weight in ``x_TD``'s dtype.
        bias_F: folded bias, fp32 or ``x_TD``'s dtype.
        eps: the LayerNorm's.

    Returns:
        (T, F) activation.
    """
    if uses_hopper(x_TD.high):
        out_TF = x_TD.high.new_empty((x_TD.high.shape[0], weight_FD.high.shape[0]))
        hopper_linear.launch(x_TD, weight_FD, bias_F, HighLow(out_TF), GELU, statistics=statistics, eps=eps)
        return out_TF
    return norm_linear_gelu_ref(x_TD, statistics, weight_FD, bias_F, eps)


def turn_pairs_(x_T2D: torch.Tensor, rotation: Rotation) -> None:
    """Rotary embedding in plain PyTorch and in place, of neighbouring elements, on queries and keys side by side."""
    pairs = x_T2D.unflatten(1, (-1, rotation.cos.shape[1], 2))
    index = rotation.positions.long()
    cos, sin = (table.to(x_T2D.dtype)[index][:, None] for table in (rotation.cos, rotation.sin))
    even, odd = pairs.unbind(3)
    pairs.copy_(torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=3))


def norm_linear_rotary_ref(
    x_TD: HighLow,
    statistics: torch.Tensor,
    weight_3DD: HighLow,
    bias_3D: torch.Tensor,
    rotation: Rotation,
    eps: float = 1e-5,
    *,
    low_parts: bool = False,
) -> HighLow:
    """`norm_linear_rotary` in plain PyTorch."""
    dtype, turned = x_TD.high.dtype, 2 * x_TD.high.shape[1]
    qkv_T3D = _product_of_normalised_ref(x_TD, statistics, weight_3DD, bias_3D, eps)
    turn_pairs_(qkv_T3D[:, :turned], rotation)
    if not low_parts:
        return HighLow(qkv_T3D.to(dtype))
    high_T3D, low_T3D = HighLow.of(qkv_T3D, dtype)
    assert low_T3D is not None
    return HighLow(high_T3D, low_T3D[:, :turned].contiguous())


def norm_linear_rotary(
    x_TD: HighLow,
    statistics: torch.Tensor,
    weight_3DD: HighLow,
    bias_3D: torch.Tensor,
    rotation: Rotation,
    eps: float = 1e-5,
    *,
    low_parts: bool = False,
) -> HighLow:
    """Queries, keys and values of ``LN(x)`` side by side, queries and keys rotated.

    Args:
        x_TD: residual stream, contiguous.
        statistics: of ``x_TD``'s rows, from `row_statistics` or `linear_residual_`.
        weight_3DD: query, key and value weights, folded by `fold_norm`, the first two in `interleave_pairs` order.
        bias_3D: their biases, likewise.
        rotation: of its tokens.
        eps: the LayerNorm's.
        low_parts: give also what rounding took from queries and keys; head dimension 16 or 32.

    Returns:
        (T, 3D), and (T, 2D) low parts of queries and keys or None.
    """
    if not uses_hopper(x_TD.high):
        return norm_linear_rotary_ref(x_TD, statistics, weight_3DD, bias_3D, rotation, eps, low_parts=low_parts)
    tokens, width = x_TD.high.shape
    low_T2D = x_TD.high.new_empty((tokens, 2 * width)) if low_parts else None
    qkv = HighLow(x_TD.high.new_empty((tokens, 3 * width)), low_T2D)
    hopper_linear.launch(x_TD, weight_3DD, bias_3D, qkv, ROTARY, statistics=statistics, rotation=rotation, eps=eps)
    return qkv


def linear_residual_ref_(x_TD: HighLow, h_TF: torch.Tensor, weight_DF: HighLow, bias_D: torch.Tensor) -> torch.Tensor:
    """`linear_residual_` in plain PyTorch."""
    wide = x_TD.wide()
    product = F.linear(h_TF.to(wide.dtype), weight_DF.wide().to(wide.dtype), bias_D.to(wide.dtype))
    total = wide + (product if x_TD.low is not None else product.to(x_TD.high.dtype))
    x_TD.high.copy_(total)
    if x_TD.low is None:
        return row_statistics_ref(x_TD.high)
    x_TD.low.copy_(total - x_TD.high)
    return row_statistics_ref(total)


def linear_residual_(x_TD: HighLow, h_TF: torch.Tensor, weight_DF: HighLow, bias_D: torch.Tensor) -> torch.Tensor:
    """``x += h Wᵀ + b`` in place; returns the statistics of the new rows for the layer that follows.

    Args:
        x_TD: residual stream, contiguous, both parts where it has them.
        h_TF: input, contiguous, same dtype.
        weight_DF: weight, same dtype.
        bias_D: bias, fp32 or the same dtype.

    Returns:
        (2, chunks, T) fp32 sums and sums of squares; their sum over the chunks is that of `row_statistics`.
    """
    if uses_hopper(x_TD.high):
        tokens, width = x_TD.high.shape
        statistics = h_TF.new_empty((2, chunks_of(width, low=x_TD.low is not None), tokens), dtype=torch.float32)
        hopper_linear.launch(HighLow(h_TF), weight_DF, bias_D, x_TD, RESIDUAL, statistics=statistics)
        return statistics
    return linear_residual_ref_(x_TD, h_TF, weight_DF, bias_D)
