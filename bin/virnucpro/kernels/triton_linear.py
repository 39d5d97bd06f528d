# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""A linear layer in 16 bits between the LayerNorm before it and the GELU or rotary embedding after it, as one kernel
for any card whose tensor cores Triton has.

What PyTorch's product would read from one pass and write for another stays in registers. Where the product alone is so
large that the passes count little, PyTorch's is the faster one: ``tiles.json`` has rows up to that width.

Shapes: T tokens, D input width, F output features.
"""

from __future__ import annotations

import functools

import torch

from virnucpro.kernels.device import jit, launch_guard, tl, triton, uses_triton
from virnucpro.kernels.gelu_polynomial import gelu_16bit
from virnucpro.kernels.launching import launcher
from virnucpro.kernels.rotary import Rotation
from virnucpro.kernels.tiles import LinearTiles, linear_tiles

#: Rows of tiles that programs side by side take of one column, so that they share what they read.
GROUP = 8


@jit
def _rotate(acc, position, Cos_ptr, Sin_ptr, left, TURNED: tl.constexpr, HALF: tl.constexpr,
            ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    """Turn neighbouring columns of a tile whose first one is ``left``, up to the column TURNED."""
    PAIRS: tl.constexpr = COLUMNS // 2
    even, odd = tl.split(acc.reshape((ROWS, PAIRS, 2)))
    pair = left // 2 + tl.arange(0, PAIRS)
    inside = (pair < TURNED // 2)[None, :]
    if PAIRS % HALF == 0 and HALF & (HALF - 1) == 0:
        # All heads of the tile turn alike: each angle is read once.
        entry = position[:, None] * HALF + tl.arange(0, HALF)[None, :]
        whole: tl.constexpr = (ROWS, PAIRS // HALF, HALF)
        cos = tl.broadcast_to(tl.load(Cos_ptr + entry)[:, None, :], whole).reshape((ROWS, PAIRS))
        sin = tl.broadcast_to(tl.load(Sin_ptr + entry)[:, None, :], whole).reshape((ROWS, PAIRS))
        if TURNED % COLUMNS:
            cos = tl.where(inside, cos, 1.0)
            sin = tl.where(inside, sin, 0.0)
    else:
        entry = position[:, None] * HALF + (pair % HALF)[None, :]
        cos = tl.load(Cos_ptr + entry, mask=inside, other=1.0)
        sin = tl.load(Sin_ptr + entry, mask=inside, other=0.0)
    return tl.join(even * cos - odd * sin, odd * cos + even * sin).reshape((ROWS, COLUMNS))


@functools.partial(jit, do_not_specialize=("T",))
def _triton_linear_kernel(
    X_ptr,  # (T, D)
    Scale_ptr,  # (T,)
    Weight_ptr,  # (F, D)
    Shift_ptr,  # (F,)
    Bias_ptr,  # (F,)
    Out_ptr,  # (T, F)
    Position_ptr,  # (T,), where TURNED
    Cos_ptr,  # (P, HALF), likewise
    Sin_ptr,  # (P, HALF), likewise
    T,
    D: tl.constexpr,
    F: tl.constexpr,
    TURNED: tl.constexpr,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    across: tl.constexpr = (F + COLUMNS - 1) // COLUMNS
    first = tl.program_id(0) // (GROUP * across) * GROUP
    within = tl.program_id(0) % (GROUP * across)
    group = tl.minimum(tl.cdiv(T, ROWS) - first, GROUP)
    left = within // group * COLUMNS
    row = (first + within % group) * ROWS + tl.arange(0, ROWS)
    column = left + tl.arange(0, COLUMNS)
    # Rows and columns beyond the last are read from it, and not written.
    token = tl.minimum(row, T - 1)
    feature = tl.minimum(column, F - 1) if F % COLUMNS else column
    depth = tl.arange(0, DEPTH)
    x_pointer = X_ptr + token.to(tl.int64)[:, None] * D + depth[None, :]
    weight_pointer = Weight_ptr + feature[None, :] * D + depth[:, None]
    acc = tl.zeros((ROWS, COLUMNS), tl.float32)
    for _ in range(0, D, DEPTH):
        acc = tl.dot(tl.load(x_pointer), tl.load(weight_pointer), acc)
        x_pointer += DEPTH
        weight_pointer += DEPTH
    acc = (acc + tl.load(Shift_ptr + feature)[None, :]) * tl.load(Scale_ptr + token)[:, None]
    acc += tl.load(Bias_ptr + feature)[None, :]
    if TURNED == 0:
        acc = gelu_16bit(acc)
    elif left < TURNED:
        position = tl.load(Position_ptr + token)
        acc = _rotate(acc, position, Cos_ptr, Sin_ptr, left, TURNED, HALF, ROWS, COLUMNS)
    target = Out_ptr + row.to(tl.int64)[:, None] * F + column[None, :]
    tl.store(target, acc.to(Out_ptr.dtype.element_ty), mask=(row < T)[:, None] & (column < F)[None, :])


def tiles_for(x_TD: torch.Tensor) -> LinearTiles | None:
    """Tiles where the kernel is to run for such an input; None where PyTorch's product and a pass are."""
    if not uses_triton(x_TD) or x_TD.dtype not in (torch.float16, torch.bfloat16):
        return None
    return linear_tiles(x_TD)


def launch(
    x_TD: torch.Tensor,
    scale_T: torch.Tensor,
    weight_FD: torch.Tensor,
    shift_F: torch.Tensor,
    bias_F: torch.Tensor,
    tiles: LinearTiles,
    rotation: Rotation | None = None,
) -> torch.Tensor:
    """(T, F) ``scale (x Wᵀ + shift) + b``, then GELU, or rotary embedding of the first two thirds where ``rotation`` is
    given.

    Args:
        x_TD: input, contiguous, fp16 or bf16; D is a multiple of ``tiles.depth``.
        scale_T: fp32 factor of each row.
        weight_FD: weight, contiguous, same dtype as the input.
        shift_F: fp32.
        bias_F: fp32.
        tiles: how the product is cut.
        rotation: of the tokens, whose pairs are neighbours.
    """
    tokens, width = x_TD.shape
    features = weight_FD.shape[0]
    out_TF = x_TD.new_empty((tokens, features))
    turned, half = (0, 1) if rotation is None else (features // 3 * 2, rotation.cos.shape[1])
    with launch_guard(x_TD):
        launcher(_triton_linear_kernel, (triton.cdiv(tokens, tiles.rows) * triton.cdiv(features, tiles.columns),))(
            x_TD, scale_T, weight_FD, shift_F, bias_F, out_TF, *(rotation or (bias_F, bias_F, bias_F)), tokens, width,
            features, turned, half, tiles.rows, tiles.columns, tiles.depth, GROUP, num_warps=tiles.warps,
            num_stages=tiles.stages,
        )  # fmt: skip
    return out_TF
