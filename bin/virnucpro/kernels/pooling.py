"""One vector per sequence out of packed token vectors, in fp32. Shapes: T tokens, D embedding width; S sequences."""

from __future__ import annotations

from typing import Literal

import torch

Mode = Literal["mean", "max", "bos"]


def pool_ref(x_TD: torch.Tensor, cu_seqlens: torch.Tensor, mode: Mode) -> torch.Tensor:
    """`pool` in plain PyTorch."""
    bounds = cu_seqlens.long()
    first, last = bounds[:-1], bounds[1:] - 1
    if mode == "bos":
        return x_TD[first].float()
    residue_T = torch.ones(x_TD.shape[0], dtype=torch.bool, device=x_TD.device)
    residue_T[first] = False
    residue_T[last] = False
    residue_T[bounds[-1] :] = False
    return torch.segment_reduce(x_TD[residue_T].float(), mode, lengths=last - first - 1, axis=0)


def pool(x_TD: torch.Tensor, cu_seqlens: torch.Tensor, mode: Mode) -> torch.Tensor:
    """Pool each sequence over its residues, that is without its first (``<cls>``) and last (``<eos>``) token.

    Args:
        x_TD: token vectors, contiguous.
        cu_seqlens: int32 (S+1,) first token of each sequence, then the end of the last; at least 3 tokens each.
        mode: ``mean`` or ``max`` over the residues, or ``bos`` for the first token's vector.

    Returns:
        (S, D) fp32.
    """
    return pool_ref(x_TD, cu_seqlens, mode)
