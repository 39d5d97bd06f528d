# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Bidirectional attention over packed sequences. Shapes: T tokens, D embedding width; S sequences."""

from __future__ import annotations

import functools
from itertools import groupby

import torch
import torch.nn.functional as F

from virnucpro.kernels import efficient_attention, hopper_attention
from virnucpro.kernels.device import jit, launch_guard, tl, triton, uses_triton
from virnucpro.kernels.launching import launcher
from virnucpro.kernels.tiles import AttentionTiles, attention_tiles

LOG2_E = 1.4426950408889634


@jit
def _softmax_step(logits, value, peak, total, out, scale, PRECISION: tl.constexpr):
    """One block of keys in the online softmax, in base 2: `scale` holds the logits' factor times log2 e."""
    new_peak = tl.maximum(peak, tl.max(logits, 1) * scale)
    weight = tl.exp2(logits * scale - new_peak[:, None])
    decay = tl.exp2(peak - new_peak)
    total = total * decay + tl.sum(weight, 1)
    out = tl.dot(weight.to(value.dtype), value, out * decay[:, None], input_precision=PRECISION)
    return new_peak, total, out


@jit
def _logits(query, key, query_low, key_low, LOW: tl.constexpr, PRECISION: tl.constexpr):
    logits = tl.dot(query, key, input_precision=PRECISION)
    if LOW:
        logits = tl.dot(query, key_low, tl.dot(query_low, key, logits))
    return logits


@functools.partial(jit, do_not_specialize=("blocks",))
def _attention_kernel(
    QKV_ptr,  # (T, 3D)
    Low_ptr,  # (T, 2D): what rounding took from queries and keys, where LOW
    Out_ptr,  # (T, D)
    Bounds_ptr,  # (S+1,)
    scale,
    blocks,  # query blocks of the longest sequence
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
    LOW: tl.constexpr,
):
    sequence = tl.program_id(0) // blocks
    start = (tl.program_id(0) % blocks) * BLOCK_M
    head = tl.program_id(1)
    first = tl.load(Bounds_ptr + sequence)
    length = tl.load(Bounds_ptr + sequence + 1) - first
    if start >= length:
        return
    WIDTH: tl.constexpr = HEADS * HEAD_DIM
    ROW: tl.constexpr = 3 * WIDTH
    base = QKV_ptr + first.to(tl.int64) * ROW + head * HEAD_DIM
    query_row = start + tl.arange(0, BLOCK_M)
    key_row = tl.arange(0, BLOCK_N)
    dim = tl.arange(0, BLOCK_DIM)
    in_head = dim < HEAD_DIM
    query_mask = (query_row < length)[:, None] & in_head[None, :]
    query = tl.load(base + query_row[:, None] * ROW + dim[None, :], mask=query_mask, other=0.0)
    if LOW:
        low_base = Low_ptr + first.to(tl.int64) * 2 * WIDTH + head * HEAD_DIM
        query_low = tl.load(low_base + query_row[:, None] * 2 * WIDTH + dim[None, :], mask=query_mask, other=0.0)
        low_pointer = low_base + WIDTH + key_row[None, :] * 2 * WIDTH + dim[:, None]
    else:
        query_low = query
        key_low = query
    key_pointer = base + WIDTH + key_row[None, :] * ROW + dim[:, None]
    value_pointer = base + 2 * WIDTH + key_row[:, None] * ROW + dim[None, :]
    peak = tl.full((BLOCK_M,), -1.0e30, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    out = tl.zeros((BLOCK_M, BLOCK_DIM), tl.float32)
    whole = (length // BLOCK_N) * BLOCK_N
    for _ in range(0, whole, BLOCK_N):
        if HEAD_DIM == BLOCK_DIM:
            key = tl.load(key_pointer)
            value = tl.load(value_pointer)
        else:
            key = tl.load(key_pointer, mask=in_head[:, None], other=0.0)
            value = tl.load(value_pointer, mask=in_head[None, :], other=0.0)
        if LOW:
            key_low = tl.load(low_pointer)
            low_pointer += BLOCK_N * 2 * WIDTH
        logits = _logits(query, key, query_low, key_low, LOW, PRECISION)
        peak, total, out = _softmax_step(logits, value, peak, total, out, scale, PRECISION)
        key_pointer += BLOCK_N * ROW
        value_pointer += BLOCK_N * ROW
    if whole < length:
        valid = whole + key_row < length
        key = tl.load(key_pointer, mask=valid[None, :] & in_head[:, None], other=0.0)
        value = tl.load(value_pointer, mask=valid[:, None] & in_head[None, :], other=0.0)
        if LOW:
            key_low = tl.load(low_pointer, mask=valid[None, :], other=0.0)
        logits = _logits(query, key, query_low, key_low, LOW, PRECISION)
        logits = tl.where(valid[None, :], logits, float("-inf"))
        peak, total, out = _softmax_step(logits, value, peak, total, out, scale, PRECISION)
    target = Out_ptr + (first + query_row).to(tl.int64)[:, None] * WIDTH + head * HEAD_DIM + dim[None, :]
    tl.store(target, (out / total[:, None]).to(Out_ptr.dtype.element_ty), mask=query_mask)


def varlen_attention_ref(
    qkv_T3D: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    heads: int,
    scale: float,
    low_T2D: torch.Tensor | None = None,
) -> torch.Tensor:
    """`varlen_attention` in plain PyTorch without padding: neighbours of equal length form one dense batch."""
    if low_T2D is not None:
        whole = qkv_T3D.to(torch.promote_types(qkv_T3D.dtype, torch.float32), copy=True)
        whole[:, : low_T2D.shape[1]] += low_T2D
        return varlen_attention_ref(whole, cu_seqlens, max_seqlen, heads, scale).to(qkv_T3D.dtype)
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


def attention_backend(tensor: torch.Tensor) -> str:
    """Name of the attention that runs where ``tensor`` is: ``triton``, a kernel of ours; ``efficient``, PyTorch's
    memory-efficient one over packed sequences; ``sdpa``, its attention by length."""
    if not uses_triton(tensor):
        return "sdpa"
    return "efficient" if efficient_attention.fits(tensor) else "triton"


def varlen_attention(
    qkv_T3D: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    heads: int,
    scale: float,
    low_T2D: torch.Tensor | None = None,
    tiles: AttentionTiles | None = None,
) -> torch.Tensor:
    """Softmax attention of each token over all tokens of its own sequence.

    Args:
        qkv_T3D: queries, keys and values of each token side by side, contiguous (T, 3D).
        cu_seqlens: int32 (S+1,) first token of each sequence, then the end of the last.
        max_seqlen: tokens of the longest sequence.
        heads: attention heads; D / heads is 16, 24, 32, 64 or 128.
        scale: factor on the logits, 1/sqrt(head_dim) unless already in the queries.
        low_T2D: what rounding took from queries and keys, contiguous; head dimension a power of two.
        tiles: tiles of the plain kernel, which then runs on Hopper too, other than those of the table.

    Returns:
        (T, D) attended values; rows that belong to no sequence are undefined.

    Raises:
        ValueError: low parts with a head dimension that is no power of two.
    """
    width = qkv_T3D.shape[1] // 3
    head_dim = width // heads
    if low_T2D is not None and head_dim & (head_dim - 1):
        raise ValueError(f"attention takes low parts with a head dimension that is a power of two, not {head_dim}")
    if not uses_triton(qkv_T3D):
        return varlen_attention_ref(qkv_T3D, cu_seqlens, max_seqlen, heads, scale, low_T2D)
    if low_T2D is None and tiles is None and efficient_attention.fits(qkv_T3D, cu_seqlens.numel() - 1):
        return efficient_attention.attend(qkv_T3D, cu_seqlens, max_seqlen, heads, scale)
    out_TD = qkv_T3D.new_empty((qkv_T3D.shape[0], width))
    if low_T2D is None and tiles is None and hopper_attention.fits(qkv_T3D, head_dim, max_seqlen):
        hopper_attention.launch(qkv_T3D, cu_seqlens, max_seqlen, heads, scale * LOG2_E, out_TD)
        return out_TD
    exact = qkv_T3D.dtype == torch.float32
    tiles = tiles or attention_tiles(qkv_T3D, head_dim, max_seqlen)
    blocks = triton.cdiv(max_seqlen, tiles.query_rows)
    with launch_guard(qkv_T3D):
        launcher(_attention_kernel, (blocks * (cu_seqlens.numel() - 1), heads))(
            qkv_T3D, qkv_T3D if low_T2D is None else low_T2D, out_TD, cu_seqlens, scale * LOG2_E, blocks,
            heads, head_dim, max(16, triton.next_power_of_2(head_dim)), tiles.query_rows, tiles.key_rows,
            "ieee" if exact else "tf32", low_T2D is not None, num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return out_TD
