"""Bidirectional attention over packed sequences. Shapes: T tokens, D embedding width; S sequences."""

from __future__ import annotations

from itertools import groupby

import torch
import torch.nn.functional as F


def varlen_attention_ref(
    qkv_T3D: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, heads: int, scale: float
) -> torch.Tensor:
    """`varlen_attention` in plain PyTorch without padding: neighbours of equal length form one dense batch."""
    width = qkv_T3D.shape[1] // 3
    out_TD = qkv_T3D.new_zeros(qkv_T3D.shape[0], width)
    begin = 0
    for length, run in groupby(cu_seqlens.diff().tolist()):
        count = sum(1 for _ in run)
        end = begin + count * length
        query, key, value = qkv_T3D[begin:end].view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, scale=scale)
        out_TD[begin:end] = attended.transpose(1, 2).reshape(count * length, width)
        begin = end
    return out_TD


def varlen_attention(
    qkv_T3D: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, heads: int, scale: float
) -> torch.Tensor:
    """Softmax attention of each token over all tokens of its own sequence.

    Args:
        qkv_T3D: queries, keys and values of each token side by side, contiguous (T, 3D).
        cu_seqlens: int32 (S+1,) first token of each sequence, then the end of the last.
        max_seqlen: tokens of the longest sequence.
        heads: attention heads; D / heads is 16, 24, 32, 64 or 128.
        scale: factor on the logits, 1/sqrt(head_dim) unless already in the queries.

    Returns:
        (T, D) attended values; rows that belong to no sequence are undefined.
    """
    return varlen_attention_ref(qkv_T3D, cu_seqlens, max_seqlen, heads, scale)
