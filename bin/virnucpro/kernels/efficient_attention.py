"""PyTorch's memory-efficient attention over packed sequences, for cards without kernels of ours: below 8.0 Triton
multiplies without tensor cores, and CUTLASS, from which this operator is made, with them. T tokens, D embedding width;
S sequences."""

from __future__ import annotations

from typing import Final

import torch

from virnucpro.kernels.device import capability, on_gpu

#: The lowest compute capability for which Triton's products take tensor cores.
TENSOR_CORES_OF_TRITON: Final = (8, 0)
#: CUDA's limit to the third dimension of a grid, along which the operator lays its sequences.
MOST_SEQUENCES: Final = 65_535


def fits(qkv_T3D: torch.Tensor, sequences: int = 1) -> bool:
    """True for so many sequences on a GPU below compute capability 8.0, in a precision that it has."""
    return (
        on_gpu(qkv_T3D)
        and capability(qkv_T3D) < TENSOR_CORES_OF_TRITON
        and qkv_T3D.dtype != torch.bfloat16
        and sequences <= MOST_SEQUENCES
    )


def attend(qkv_T3D: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, heads: int, scale: float) -> torch.Tensor:
    """`varlen_attention` without low parts, on any GPU: fp16 with sums in fp32, or fp32; (T, D)."""
    query, key, value = qkv_T3D.view(1, len(qkv_T3D), 3, heads, -1).unbind(2)
    no_bias, no_dropout, no_mask, no_log_sum = None, 0.0, 0, False
    attended: torch.Tensor
    attended, *_ = torch.ops.aten._efficient_attention_forward(
        query, key, value, no_bias, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, no_dropout, no_mask, no_log_sum,
        scale=scale,
    )  # fmt: skip
    return attended.reshape(len(qkv_T3D), -1)
