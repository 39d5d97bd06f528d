# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Linear layers in e4m3 with one scale a row, and the two kernels that quantise what they produce for them.

A row is divided by its greatest magnitude over 448, the largest e4m3 number, and that quotient is its scale. Ada and
later multiply such matrices at twice the rate of 16-bit ones (`torch._scaled_mm`).

Shapes: T tokens, D input features, F output features.
"""

from __future__ import annotations

import functools
from typing import Final

import torch
import torch.nn.functional as F

from virnucpro.kernels.device import jit, launch_guard, on_gpu, tl, triton, uses_triton
from virnucpro.kernels.gelu_polynomial import gelu_16bit
from virnucpro.kernels.launching import launcher
from virnucpro.kernels.layer_norm import add_layer_norm_ref, add_normalise

ELEMENTS = 2048  # of one program
E4M3_MAX: Final = 448.0
SMALLEST_PEAK: Final = 1e-12

Quantised = tuple[torch.Tensor, torch.Tensor]


def quantise_rows(x_TD: torch.Tensor) -> Quantised:
    """(T, D) e4m3 and (T, 1) fp32 scales whose product is nearest to ``x``, row by row."""
    wide = x_TD.to(torch.promote_types(x_TD.dtype, torch.float32))
    scale_T1 = wide.abs().amax(dim=1, keepdim=True).clamp_min(SMALLEST_PEAK) / E4M3_MAX
    return (wide / scale_T1).to(torch.float8_e4m3fn), scale_T1.float()


def restored(quantised: Quantised) -> torch.Tensor:
    """The fp32 matrix that values and scales stand for."""
    values, scale = quantised
    return values.float() * scale


@jit
def _store_quantised(y, Out_ptr, Scale_ptr, offset, row, inside, rows_inside):
    scale = tl.maximum(tl.max(tl.abs(y), 1), 1e-12) / 448.0
    tl.store(Out_ptr + offset, (y / scale[:, None]).to(Out_ptr.dtype.element_ty), mask=inside)
    tl.store(Scale_ptr + row, scale, mask=rows_inside)


@functools.partial(jit, do_not_specialize=("T",))
def _add_layer_norm_quantise_kernel(
    X_ptr, Delta_ptr, Weight_ptr, Bias_ptr, Out_ptr, Scale_ptr, T, eps,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, HAS_DELTA: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    inside = (row < T)[:, None] & (column < D)[None, :]
    offset = row[:, None] * D + column[None, :]
    y = add_normalise(X_ptr, Delta_ptr, X_ptr, Weight_ptr, Bias_ptr, offset, column, inside, eps, D, HAS_DELTA, False)
    _store_quantised(y, Out_ptr, Scale_ptr, offset, row, inside, row < T)


@functools.partial(jit, do_not_specialize=("T",))
def _gelu_quantise_kernel(X_ptr, Out_ptr, Scale_ptr, T, D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    inside = (row < T)[:, None] & (column < D)[None, :]
    offset = row[:, None] * D + column[None, :]
    y = gelu_16bit(tl.load(X_ptr + offset, mask=inside, other=0.0).to(tl.float32))
    _store_quantised(y, Out_ptr, Scale_ptr, offset, row, inside, row < T)


def _row_tile(width: int) -> tuple[int, int]:
    """Columns, a power of two, and rows of one program that has whole rows of ``width`` elements."""
    columns: int = triton.next_power_of_2(width)
    return columns, max(1, ELEMENTS // columns)


def _empty_like_quantised(x_TD: torch.Tensor) -> Quantised:
    quantised_TD = torch.empty_like(x_TD, dtype=torch.float8_e4m3fn)
    return quantised_TD, x_TD.new_empty((x_TD.shape[0], 1), dtype=torch.float32)


def add_layer_norm_quantise_ref(
    x_TD: torch.Tensor, delta_TD: torch.Tensor | None, weight_D: torch.Tensor, bias_D: torch.Tensor, eps: float = 1e-5
) -> Quantised:
    """`add_layer_norm_quantise` in plain PyTorch."""
    wide = torch.promote_types(x_TD.dtype, torch.float32)
    return quantise_rows(add_layer_norm_ref(x_TD, delta_TD, weight_D, bias_D, eps, wide))


def add_layer_norm_quantise(
    x_TD: torch.Tensor, delta_TD: torch.Tensor | None, weight_D: torch.Tensor, bias_D: torch.Tensor, eps: float = 1e-5
) -> Quantised:
    """`add_layer_norm` whose result is quantised row by row: (T, D) e4m3 and (T, 1) fp32 scales."""
    if not uses_triton(x_TD):
        return add_layer_norm_quantise_ref(x_TD, delta_TD, weight_D, bias_D, eps)
    tokens, width = x_TD.shape
    out_TD, scale_T1 = _empty_like_quantised(x_TD)
    block, rows = _row_tile(width)
    with launch_guard(x_TD):
        launcher(_add_layer_norm_quantise_kernel, (triton.cdiv(tokens, rows),))(
            x_TD, delta_TD, weight_D, bias_D, out_TD, scale_T1, tokens, eps, width, block, rows,
            delta_TD is not None, num_warps=4,
        )  # fmt: skip
    return out_TD, scale_T1


def gelu_quantise_ref(x_TD: torch.Tensor) -> Quantised:
    """`gelu_quantise` in plain PyTorch."""
    return quantise_rows(F.gelu(x_TD.to(torch.promote_types(x_TD.dtype, torch.float32))))


def gelu_quantise(x_TD: torch.Tensor) -> Quantised:
    """Erf GELU of a contiguous tensor, quantised row by row: (T, D) e4m3 and (T, 1) fp32 scales."""
    if not uses_triton(x_TD):
        return gelu_quantise_ref(x_TD)
    tokens, width = x_TD.shape
    out_TD, scale_T1 = _empty_like_quantised(x_TD)
    block, rows = _row_tile(width)
    with launch_guard(x_TD):
        launcher(_gelu_quantise_kernel, (triton.cdiv(tokens, rows),))(
            x_TD, out_TD, scale_T1, tokens, width, block, rows, num_warps=8
        )
    return out_TD, scale_T1


def fp8_linear_ref(x: Quantised, weight: Quantised, bias_F: torch.Tensor) -> torch.Tensor:
    """`fp8_linear` in plain PyTorch."""
    return F.linear(restored(x), restored(weight), bias_F.float()).to(bias_F.dtype)


def fp8_linear(x: Quantised, weight: Quantised, bias_F: torch.Tensor) -> torch.Tensor:
    """``x Wᵀ + b`` of quantised operands; D and F are multiples of 16.

    Args:
        x: (T, D) e4m3 and (T, 1) scales.
        weight: (F, D) e4m3 and (F, 1) scales.
        bias_F: bf16 bias.

    Returns:
        (T, F) bf16.
    """
    (x_TD, scale_T1), (weight_FD, scale_F1) = x, weight
    if not on_gpu(x_TD):
        return fp8_linear_ref(x, weight, bias_F)
    out_TF: torch.Tensor = torch._scaled_mm(
        x_TD, weight_FD.T, scale_T1, scale_F1.T, bias=bias_F, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return out_TF
