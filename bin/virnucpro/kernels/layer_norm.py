# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""LayerNorm of the residual stream in one pass, with what is added to the stream, and the scale of its rows alone.

Shapes: T tokens, D embedding width.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from virnucpro.kernels.device import jit, launch_guard, tl, triton, uses_triton
from virnucpro.kernels.launching import launcher

ELEMENTS = 4096  # of the residual stream in flight in one warp


@jit
def _load_sum(
    X_ptr, Delta_ptr, Shift_ptr, offset, column, inside, D: tl.constexpr, HAS_DELTA: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
):  # fmt: skip
    """Rows of X in fp32, with those of Delta, which are added in memory too, and with Shift, which is not."""
    x = tl.load(X_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    if HAS_DELTA:
        x += tl.load(Delta_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        tl.store(X_ptr + offset, x.to(X_ptr.dtype.element_ty), mask=inside)
    if HAS_SHIFT:
        x += tl.load(Shift_ptr + column, mask=column < D, other=0.0)[None, :]
    return x


@jit
def _centre(x, inside, eps, D: tl.constexpr):
    """Rows brought to mean zero, and one over their deviations."""
    mean = tl.sum(x, 1) / D
    centred = tl.where(inside, x - mean[:, None], 0.0)
    return centred, 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / D + eps)


@jit
def add_normalise(
    X_ptr, Delta_ptr, Shift_ptr, Weight_ptr, Bias_ptr, offset, column, inside, eps, D: tl.constexpr,
    HAS_DELTA: tl.constexpr, HAS_SHIFT: tl.constexpr,
):  # fmt: skip
    """The LayerNorm in fp32 of what `_load_sum` gives."""
    x = _load_sum(X_ptr, Delta_ptr, Shift_ptr, offset, column, inside, D, HAS_DELTA, HAS_SHIFT)
    centred, scale = _centre(x, inside, eps, D)
    weight = tl.load(Weight_ptr + column, mask=column < D, other=0.0).to(tl.float32)
    bias = tl.load(Bias_ptr + column, mask=column < D, other=0.0).to(tl.float32)
    return centred * scale[:, None] * weight[None, :] + bias[None, :]


@functools.partial(jit, do_not_specialize=("T",))
def _add_layer_norm_kernel(
    X_ptr,  # (T, D)
    Delta_ptr,  # (T, D)
    Shift_ptr,  # (D,)
    Weight_ptr,  # (D,)
    Bias_ptr,  # (D,)
    Out_ptr,  # (T, D)
    T,
    eps,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_DELTA: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    inside = (row < T)[:, None] & (column < D)[None, :]
    offset = row[:, None] * D + column[None, :]
    out = add_normalise(
        X_ptr, Delta_ptr, Shift_ptr, Weight_ptr, Bias_ptr, offset, column, inside, eps, D, HAS_DELTA, HAS_SHIFT
    )
    tl.store(Out_ptr + offset, out.to(Out_ptr.dtype.element_ty), mask=inside)


@functools.partial(jit, do_not_specialize=("T",))
def _row_scale_kernel(
    X_ptr, Shift_ptr, Scale_ptr, T, eps, D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    inside = (row < T)[:, None] & (column < D)[None, :]
    offset = row[:, None] * D + column[None, :]
    _, scale = _centre(_load_sum(X_ptr, X_ptr, Shift_ptr, offset, column, inside, D, False, True), inside, eps, D)
    tl.store(Scale_ptr + row, scale, mask=row < T)


def _row_tile(width: int) -> tuple[int, int, int]:
    """Columns, a power of two, and rows of one program that has whole rows of ``width`` elements, and its warps.

    The fewest warps: what they wait for each other costs more than what one of them waits for memory.
    """
    columns: int = triton.next_power_of_2(width)
    warps = max(1, 2 * columns // ELEMENTS)
    return columns, max(1, warps * ELEMENTS // columns), warps


def add_layer_norm_ref(
    x_TD: torch.Tensor,
    delta_TD: torch.Tensor | None,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    eps: float = 1e-5,
    out_dtype: torch.dtype | None = None,
    shift_D: torch.Tensor | None = None,
) -> torch.Tensor:
    """`add_layer_norm` in plain PyTorch."""
    compute = torch.promote_types(x_TD.dtype, torch.float32)
    total = x_TD.to(compute)
    if delta_TD is not None:
        total = total + delta_TD.to(compute)
        x_TD.copy_(total)
    if shift_D is not None:
        total = total + shift_D.to(compute)
    normed = F.layer_norm(total, total.shape[-1:], weight_D.to(compute), bias_D.to(compute), eps)
    return normed.to(out_dtype or x_TD.dtype)


def add_layer_norm(
    x_TD: torch.Tensor,
    delta_TD: torch.Tensor | None,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    eps: float = 1e-5,
    out_dtype: torch.dtype | None = None,
    shift_D: torch.Tensor | None = None,
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
        shift_D: fp32, what every row counts as more than it has; ``x`` is not changed by it.

    Returns:
        (T, D) normalised sum.
    """
    if not uses_triton(x_TD):
        return add_layer_norm_ref(x_TD, delta_TD, weight_D, bias_D, eps, out_dtype, shift_D)
    tokens, width = x_TD.shape
    out_TD = torch.empty_like(x_TD, dtype=out_dtype or x_TD.dtype)
    columns, rows, warps = _row_tile(width)
    with launch_guard(x_TD):
        launcher(_add_layer_norm_kernel, (triton.cdiv(tokens, rows),))(
            x_TD, delta_TD, shift_D, weight_D, bias_D, out_TD, tokens, eps, width, columns, rows,
            delta_TD is not None, shift_D is not None, num_warps=warps,
        )  # fmt: skip
    return out_TD


def row_scale_ref(x_TD: torch.Tensor, shift_D: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """`row_scale` in plain PyTorch."""
    total = x_TD.to(torch.promote_types(x_TD.dtype, torch.float32)) + shift_D
    return (total.var(1, correction=0) + eps).rsqrt()


def row_scale(x_TD: torch.Tensor, shift_D: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """(T,) fp32, one over the deviation of each row of ``x + shift``: what a LayerNorm multiplies it by.

    Args:
        x_TD: residual stream, contiguous.
        shift_D: fp32, what every row counts as more than it has.
        eps: the LayerNorm's, added to the variance.
    """
    if not uses_triton(x_TD):
        return row_scale_ref(x_TD, shift_D, eps)
    tokens, width = x_TD.shape
    scale_T = x_TD.new_empty(tokens, dtype=torch.float32)
    columns, rows, warps = _row_tile(width)
    with launch_guard(x_TD):
        launcher(_row_scale_kernel, (triton.cdiv(tokens, rows),))(
            x_TD, shift_D, scale_T, tokens, eps, width, columns, rows, num_warps=warps
        )
    return scale_T
