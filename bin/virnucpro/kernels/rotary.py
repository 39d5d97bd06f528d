# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Rotary position embedding on the fused QKV projection.

Shapes: T tokens, D embedding width, P positions of the table, H half of the head dimension.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch

from virnucpro.kernels.device import jit, launch_guard, tl, triton, uses_triton
from virnucpro.kernels.launching import launcher

TOKENS = 32  # of one program


class Rotation(NamedTuple):
    """What turns queries and keys.

    Attributes:
        positions: (T,) int32 position of each token in its sequence, 0 for ``<cls>``.
        cos: (P, H) fp32 cosines, one row a position.
        sin: (P, H) fp32 sines, one row a position.
    """

    positions: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor


@functools.partial(jit, do_not_specialize=("T",))
def _rotary_kernel(
    QKV_ptr,  # (T, 3D)
    Position_ptr,  # (T,)
    Cos_ptr,  # (P, HALF)
    Sin_ptr,  # (P, HALF)
    T,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    ROW: tl.constexpr,
    HALF: tl.constexpr,
    ADJACENT: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    token = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    column = tl.arange(0, BLOCK_HALF)
    inside = (token < T)[:, None] & (column < HALF)[None, :]
    position = tl.load(Position_ptr + token, mask=token < T, other=0)
    table = position[:, None] * HALF + column[None, :]
    cos = tl.load(Cos_ptr + table, mask=inside, other=0.0)
    sin = tl.load(Sin_ptr + table, mask=inside, other=0.0)
    pointer = QKV_ptr + token.to(tl.int64)[:, None] * ROW + (2 * column if ADJACENT else column)[None, :]
    apart = 1 if ADJACENT else HALF
    for head in tl.range(FIRST, LAST, num_stages=3):
        low = pointer + head * (2 * HALF)
        a = tl.load(low, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(low + apart, mask=inside, other=0.0).to(tl.float32)
        tl.store(low, (a * cos - b * sin).to(QKV_ptr.dtype.element_ty), mask=inside)
        tl.store(low + apart, (b * cos + a * sin).to(QKV_ptr.dtype.element_ty), mask=inside)


def rotary_ref_(
    qkv_T3D: torch.Tensor,
    rotation: Rotation,
    heads: int,
    *,
    adjacent: bool = False,
) -> None:
    """`rotary_` in plain PyTorch."""
    pairs = qkv_T3D.view(qkv_T3D.shape[0], 3, heads, *((-1, 2) if adjacent else (2, -1)))[:, :2]
    pairs = pairs.transpose(3, 4) if adjacent else pairs
    compute = torch.promote_types(qkv_T3D.dtype, torch.float32)
    index = rotation.positions.long()
    cos, sin = (table.to(compute)[index][:, None, None, :] for table in (rotation.cos, rotation.sin))
    first, second = pairs.to(compute).unbind(3)
    pairs.copy_(torch.stack((first * cos - second * sin, second * cos + first * sin), dim=3))


def rotary_(
    qkv_T3D: torch.Tensor,
    rotation: Rotation,
    heads: int,
    *,
    adjacent: bool = False,
) -> None:
    """Rotate the queries and keys in place over the whole head.

    Args:
        qkv_T3D: queries, keys and values of each token side by side, contiguous (T, 3D).
        rotation: of its tokens.
        heads: attention heads.
        adjacent: element 2i of a head pairs with 2i+1; otherwise i pairs with i + head_dim/2 (rotate-half).
    """
    if not uses_triton(qkv_T3D):
        rotary_ref_(qkv_T3D, rotation, heads, adjacent=adjacent)
        return
    tokens, row = qkv_T3D.shape
    half = rotation.cos.shape[1]
    with launch_guard(qkv_T3D):
        launcher(_rotary_kernel, (triton.cdiv(tokens, TOKENS),))(
            qkv_T3D, *rotation, tokens,
            0, 2 * heads, row, half, adjacent, triton.next_power_of_2(half), TOKENS, num_warps=4,
        )  # fmt: skip
