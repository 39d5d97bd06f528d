# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""One vector per sequence out of packed token vectors, in fp32. Shapes: T tokens, D embedding width; S sequences."""

from __future__ import annotations

from typing import Final

import torch

from virnucpro.kernels.device import jit, launch_guard, tl, triton, uses_triton
from virnucpro.kernels.launching import launcher

COLUMNS = 64  # of one program
ROWS = 16  # read at a time

MODES: Final = ("mean", "max", "bos")
_KERNEL_MODES: Final = ("mean", "max")


@jit
def _pool_kernel(
    X_ptr,  # (T, D)
    Bounds_ptr,  # (S+1,)
    Out_ptr,  # (S, D)
    D,
    MAX: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    sequence = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    begin = tl.load(Bounds_ptr + sequence).to(tl.int64) + 1
    residues = tl.load(Bounds_ptr + sequence + 1) - begin - 1
    neutral = float("-inf") if MAX else 0.0
    partial = tl.full((BLOCK_T, BLOCK_D), neutral, tl.float32)
    for start in range(0, residues, BLOCK_T):
        row = start + tl.arange(0, BLOCK_T)
        inside = (row < residues)[:, None] & (column < D)[None, :]
        x = tl.load(X_ptr + (begin + row)[:, None] * D + column[None, :], mask=inside, other=neutral).to(tl.float32)
        if MAX:
            partial = tl.maximum(partial, x, propagate_nan=tl.PropagateNan.ALL)
        else:
            partial += x
    if MAX:
        # a maximum across threads drops NaN
        spoilt = tl.sum((partial != partial).to(tl.int32), 0) > 0
        pooled = tl.where(spoilt, float("nan"), tl.max(partial, 0))
    else:
        pooled = tl.sum(partial, 0) / residues
    tl.store(Out_ptr + sequence.to(tl.int64) * D + column, pooled, mask=column < D)


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"pooling '{mode}' is not one of {', '.join(MODES)}")


def pool_ref(x_TD: torch.Tensor, cu_seqlens: torch.Tensor, mode: str) -> torch.Tensor:
    """`pool` in plain PyTorch."""
    _check_mode(mode)
    if x_TD.device.type == "mps":  # which PyTorch reduces no segments on
        return pool_ref(x_TD.cpu(), cu_seqlens.cpu(), mode).to(x_TD.device)
    bounds = cu_seqlens.long()
    first, last = bounds[:-1], bounds[1:] - 1
    if mode == "bos":
        return x_TD[first].float()
    residue_T = torch.ones(x_TD.shape[0], dtype=torch.bool, device=x_TD.device)
    residue_T[first] = False
    residue_T[last] = False
    residue_T[bounds[-1] :] = False
    return torch.segment_reduce(x_TD[residue_T].float(), mode, lengths=last - first - 1, axis=0)


def pool(x_TD: torch.Tensor, cu_seqlens: torch.Tensor, mode: str) -> torch.Tensor:
    """Pool each sequence over its residues, that is without its first (``<cls>``) and last (``<eos>``) token.

    Args:
        x_TD: token vectors, contiguous.
        cu_seqlens: int32 (S+1,) first token of each sequence, then the end of the last; at least 3 tokens each.
        mode: ``mean`` or ``max`` over the residues, or ``bos`` for the first token's vector.

    Returns:
        (S, D) fp32.

    Raises:
        ValueError: another mode.
    """
    _check_mode(mode)
    if mode not in _KERNEL_MODES or not uses_triton(x_TD):
        return pool_ref(x_TD, cu_seqlens, mode)
    sequences, width = cu_seqlens.numel() - 1, x_TD.shape[1]
    out_SD = x_TD.new_empty((sequences, width), dtype=torch.float32)
    with launch_guard(x_TD):
        launcher(_pool_kernel, (sequences, triton.cdiv(width, COLUMNS)))(
            x_TD, cu_seqlens, out_SD, width, mode == "max", COLUMNS, ROWS, num_warps=4
        )
    return out_SD
