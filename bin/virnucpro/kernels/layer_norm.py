# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Residual addition and LayerNorm in one pass over the residual stream. Shapes: T tokens, D embedding width."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from virnucpro.kernels.device import jit, launch_guard, tl, triton, uses_triton
from virnucpro.kernels.launching import launcher

ELEMENTS = 2048  # of the residual stream in flight in one program


@jit
def add_normalise(
    X_ptr, Delta_ptr, Weight_ptr, Bias_ptr, offset, column, inside, eps, D: tl.constexpr, HAS_DELTA: tl.constexpr
):  # fmt: skip
    """Add the rows of Delta to those of X in memory, where there are any; returns the LayerNorm of the sums in fp32."""
    x = tl.load(X_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    if HAS_DELTA:
        x += tl.load(Delta_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        tl.store(X_ptr + offset, x.to(X_ptr.dtype.element_ty), mask=inside)
    mean = tl.sum(x, 1) / D
    centred = tl.where(inside, x - mean[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / D + eps)
    weight = tl.load(Weight_ptr + column, mask=column < D, other=0.0).to(tl.float32)
    bias = tl.load(Bias_ptr + column, mask=column < D, other=0.0).to(tl.float32)
    return centred * scale[:, None] * weight[None, :] + bias[None, :]


@functools.partial(jit, do_not_specialize=("T",))
def _add_layer_norm_kernel(
    X_ptr,  # (T, D)
    Delta_ptr,  # (T, D)
    Weight_ptr,  # (D,)
    Bias_ptr,  # (D,)
    Out_ptr,  # (T, D)
    T,
    eps,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_DELTA: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    inside = (row < T)[:, None] & (column < D)[None, :]
    offset = row[:, None] * D + column[None, :]
    out = add_normalise(X_ptr, Delta_ptr, Weight_ptr, Bias_ptr, offset, column, inside, eps, D, HAS_DELTA)
    tl.store(Out_ptr + offset, out.to(Out_ptr.dtype.element_ty), mask=inside)


def row_tile(width: int) -> tuple[int, int]:
    """Columns, a power of two, and rows of one program that has whole rows of ``width`` elements."""
    columns: int = triton.next_power_of_2(width)
    return columns, max(1, ELEMENTS // columns)


def add_layer_norm_ref(
    x_TD: torch.Tensor,
    delta_TD: torch.Tensor | None,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    eps: float = 1e-5,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """`add_layer_norm` in plain PyTorch."""
    compute = torch.promote_types(x_TD.dtype, torch.float32)
    total = x_TD.to(compute)
    if delta_TD is not None:
        total = total + delta_TD.to(compute)
        x_TD.copy_(total)
    normed = F.layer_norm(total, total.shape[-1:], weight_D.to(compute), bias_D.to(compute), eps)
    return normed.to(out_dtype or x_TD.dtype)


def add_layer_norm(
    x_TD: torch.Tensor,
    delta_TD: torch.Tensor | None,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    eps: float = 1e-5,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``x += delta`` in place (where ``delta`` is given), then LayerNorm of the sum.

    The statistics are fp32 and taken from the sum before it is rounded to ``x``'s dtype.

    Args:
        x_TD: residual stream, contiguous; changed in place where ``delta_TD`` is given.
        delta_TD: the addend, or None for a LayerNorm alone.
        weight_D: fp32 gain.
        bias_D: fp32 offset.
        eps: added to the variance.
        out_dtype: dtype of the result; ``x_TD``'s where None.

    Returns:
        (T, D) normalised sum.
    """
    if not uses_triton(x_TD):
        return add_layer_norm_ref(x_TD, delta_TD, weight_D, bias_D, eps, out_dtype)
    tokens, width = x_TD.shape
    out_TD = torch.empty_like(x_TD, dtype=out_dtype or x_TD.dtype)
    block, rows = row_tile(width)
    with launch_guard(x_TD):
        launcher(_add_layer_norm_kernel, (triton.cdiv(tokens, rows),))(
            x_TD, delta_TD, weight_D, bias_D, out_TD, tokens, eps, width, block, rows, delta_TD is not None, num_warps=4
        )
    return out_TD
