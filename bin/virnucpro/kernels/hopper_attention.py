# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Attention over packed sequences for Hopper: one persistent block per multiprocessor, its warps specialised.

A piece of work is one head's queries, 64 rows for each consumer, of one sequence. A producer warp fills two places for
queries and a ring of tiles with keys and values, in the order in which they are used, and runs ahead into the next
piece. Each consumer warpgroup owns 64 rows of queries and runs apart from the others by up to the depth of the ring.
In a warpgroup the product of weights and values is in flight while the softmax over the next keys is computed. The
last keys of a sequence come first, so that the loop over the others has nothing to mask.

Shapes: T tokens, D embedding width; S sequences.
"""

from __future__ import annotations

import functools
import math

import torch

from virnucpro.kernels.device import gl, gluon_jit, hopper, launch_guard, multiprocessors, triton, uses_hopper
from virnucpro.kernels.hopper_ragged import advance, describe, fetch, place_of, skip
from virnucpro.kernels.launching import launcher
from virnucpro.kernels.tiles import HopperAttentionTiles, hopper_attention_tiles

#: Head dimensions and the longest sequence from which on the kernel is faster than the plain one.
LEAST_LENGTHS = {24: 0, 32: 641, 64: 0, 128: 0}
ROWS = 64  # of queries, a consumer
SHARED_MEMORY = 225 << 10  # bytes of tiles: what a block may have, less some for barriers
MAX_STAGES = 12


@gluon_jit
def piece_of(lap, work, HEADS: gl.constexpr, ROWS: gl.constexpr):
    """First row, head, end of the sequence and its length, 0 where there is no piece left.

    Blocks of one head are neighbours, so that those in flight share keys and values in the L2 cache. In each lap the
    programs take their places ``turn`` further on: without, one program might get nothing but last blocks, which are
    short or, in sequences shorter than the longest, empty.
    """
    Bounds_ptr, pieces, blocks, turn = work
    programs = gl.num_programs(0)
    index = lap * programs + (gl.program_id(0) + lap * turn) % programs
    head = index // blocks
    sequence = gl.minimum(index, pieces - 1) // (blocks * HEADS)
    end = gl.load(Bounds_ptr + sequence + 1)
    length = end - gl.load(Bounds_ptr + sequence)
    return (index % blocks) * ROWS, head % HEADS, end, gl.where(index < pieces, length, 0)


@gluon_jit
def produce(
    queries, keys, query_ring, ring, work,
    HEADS: gl.constexpr, HEAD_DIM: gl.constexpr, BLOCK_DIM: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    CONSUMERS: gl.constexpr,
):  # fmt: skip
    query_tiles, query_full, query_free = query_ring
    slot, phase, spot, spot_phase = 0, 0, 0, 0
    for lap in range(gl.cdiv(work[1], gl.num_programs(0))):
        start, head, end, length = piece_of(lap, work, HEADS, 64 * CONSUMERS)
        if start < length:
            hopper.mbarrier.wait(query_free.index(spot), spot_phase ^ 1)
            ready = query_full.index(spot)
            hopper.mbarrier.expect(ready, CONSUMERS * queries.block_type.nbytes)
            for part in gl.static_range(CONSUMERS):
                place = place_of(end, length, start + 64 * part, head, HEAD_DIM, BLOCK_DIM)
                hopper.tma.async_copy_global_to_shared(
                    queries, place, ready, query_tiles.index(CONSUMERS * spot + part)
                )
            spot, spot_phase = advance(spot, spot_phase, 2)
            tail = ((length - 1) // BLOCK_N) * BLOCK_N
            fetch(keys, ring, slot, phase, end, length, tail, head + HEADS, HEAD_DIM, BLOCK_DIM)
            slot, phase = advance(slot, phase, STAGES)
            for row in range(tail, 0, -BLOCK_N):
                fetch(keys, ring, slot, phase, end, length, row - BLOCK_N, head + HEADS, HEAD_DIM, BLOCK_DIM)
                slot, phase = advance(slot, phase, STAGES)
                fetch(keys, ring, slot, phase, end, length, row, head + 2 * HEADS, HEAD_DIM, BLOCK_DIM)
                slot, phase = advance(slot, phase, STAGES)
            fetch(keys, ring, slot, phase, end, length, 0, head + 2 * HEADS, HEAD_DIM, BLOCK_DIM)
            slot, phase = advance(slot, phase, STAGES)


@gluon_jit
def _exp2(x):
    return gl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1)


@gluon_jit
def _row_sums(x, COLUMNS: gl.constexpr):
    """(64, 4): the part of each row's sum that a thread has itself; threads are added up at the end."""
    return gl.sum(gl.sum(x.reshape((64, COLUMNS // 8, 4, 2)), 3), 1)


@gluon_jit
def _score(query, tile, logits, BLOCK_N: gl.constexpr, BLOCK_DIM: gl.constexpr):
    keys = tile.reshape((BLOCK_N, BLOCK_DIM)).permute((1, 0))
    return hopper.warpgroup_mma(query, keys, logits, use_acc=False, is_async=True)


@gluon_jit
def _first_keys(query, ring, slot, length, tail, scale, BLOCK_N: gl.constexpr, BLOCK_DIM: gl.constexpr):
    """Softmax over the keys from ``tail`` on: logits, whose registers the others use again, weights, peaks, sums."""
    tiles, _, free = ring
    LOGITS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    logits = gl.zeros((64, BLOCK_N), gl.float32, LOGITS)
    logits = _score(query, tiles.index(slot), logits, BLOCK_N, BLOCK_DIM)
    logits = hopper.warpgroup_mma_wait(0, [logits])
    hopper.mbarrier.arrive(free.index(slot), count=1)
    if tail + BLOCK_N > length:
        key = tail + gl.arange(0, BLOCK_N, gl.SliceLayout(0, LOGITS))
        logits = gl.where((key < length)[None, :], logits, float("-inf"))
    peak = gl.max(logits, 1) * scale
    weights = _exp2(logits * scale - peak[:, None])
    return logits, weights, peak, _row_sums(weights, BLOCK_N)


@gluon_jit
def _other_keys(
    query, ring, slot, phase, logits, weights, peak, total, acc, scale,
    STAGES: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_DIM: gl.constexpr,
):  # fmt: skip
    """Softmax over the keys in ``slot`` while the weights before them are multiplied with their values.

    The keys are there. The wait for the tile after the values, the next step's, stands before the end of the product:
    it keeps the compiler from moving the softmax behind it.
    """
    tiles, full, free = ring
    logits = _score(query, tiles.index(slot), logits, BLOCK_N, BLOCK_DIM)
    values, values_phase = advance(slot, phase, STAGES)
    hopper.mbarrier.wait(full.index(values), values_phase)
    acc = hopper.warpgroup_mma(weights, tiles.index(values).reshape((BLOCK_N, BLOCK_DIM)), acc, is_async=True)
    logits = hopper.warpgroup_mma_wait(1, [logits])
    hopper.mbarrier.arrive(free.index(slot), count=1)
    higher = gl.maximum(peak, gl.max(logits, 1) * scale)
    wide = _exp2(logits * scale - higher[:, None])
    decay = _exp2(peak - higher)
    total = total * gl.convert_layout(decay, gl.SliceLayout(1, total.type.layout))[:, None] + _row_sums(wide, BLOCK_N)
    slot, phase = advance(values, values_phase, STAGES)
    hopper.mbarrier.wait(full.index(slot), phase)
    acc, wide, total = hopper.warpgroup_mma_wait(0, [acc, wide, total])
    hopper.mbarrier.arrive(free.index(values), count=1)
    weights = gl.convert_layout(wide.to(weights.dtype), weights.type.layout)
    acc = acc * gl.convert_layout(decay, gl.SliceLayout(1, acc.type.layout))[:, None]
    return slot, phase, logits, weights, higher, total, acc


@gluon_jit
def _attend(
    out, query_ring, ring, work, scale, ME: gl.constexpr,
    HEADS: gl.constexpr, HEAD_DIM: gl.constexpr, BLOCK_DIM: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    CONSUMERS: gl.constexpr,
):  # fmt: skip
    query_tiles, query_full, query_free = query_ring
    tiles, full, free = ring
    VALUES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_DIM, 16])
    slot, phase, spot, spot_phase, stored = 0, 0, 0, 0, 0
    for lap in range(gl.cdiv(work[1], gl.num_programs(0))):
        start, head, end, length = piece_of(lap, work, HEADS, 64 * CONSUMERS)
        start += 64 * ME
        if start - 64 * ME < length:
            tail = ((length - 1) // BLOCK_N) * BLOCK_N
            if start < length:
                tile = query_tiles.index(CONSUMERS * spot + ME)
                query = tile.reshape((64, BLOCK_DIM))
                hopper.mbarrier.wait(query_full.index(spot), spot_phase)
                hopper.mbarrier.wait(full.index(slot), phase)
                logits, wide, peak, total = _first_keys(query, ring, slot, length, tail, scale, BLOCK_N, BLOCK_DIM)
                slot, phase = advance(slot, phase, STAGES)
                if stored:
                    hopper.tma.store_wait(0)
                    hopper.mbarrier.arrive(query_free.index(spot ^ 1), count=1)
                weights = gl.convert_layout(wide.to(out.dtype), gl.DotOperandLayout(0, VALUES, 2))
                acc = gl.zeros((64, BLOCK_DIM), gl.float32, VALUES)
                hopper.mbarrier.wait(full.index(slot), phase)
                for _ in range(0, tail, BLOCK_N):
                    slot, phase, logits, weights, peak, total, acc = _other_keys(
                        query, ring, slot, phase, logits, weights, peak, total, acc, scale, STAGES, BLOCK_N, BLOCK_DIM
                    )
                values = tiles.index(slot).reshape((BLOCK_N, BLOCK_DIM))
                acc = hopper.warpgroup_mma(weights, values, acc, is_async=True)
                inverse = gl.convert_layout(1.0 / gl.sum(total, 1), gl.SliceLayout(1, VALUES))
                acc = hopper.warpgroup_mma_wait(0, [acc])
                hopper.mbarrier.arrive(free.index(slot), count=1)
                slot, phase = advance(slot, phase, STAGES)
                query.store((acc * inverse[:, None]).to(out.dtype))
                hopper.fence_async_shared()
                place = place_of(end, length, start, head, HEAD_DIM, BLOCK_DIM)
                hopper.tma.async_copy_shared_to_global(out, place, tile)
            else:
                for _ in range(0, tail + BLOCK_N, BLOCK_N):
                    slot, phase = skip(ring, slot, phase, STAGES)
                    slot, phase = skip(ring, slot, phase, STAGES)
                if stored:
                    hopper.tma.store_wait(0)
                    hopper.mbarrier.arrive(query_free.index(spot ^ 1), count=1)
            stored = 1
            spot, spot_phase = advance(spot, spot_phase, 2)
    hopper.tma.store_wait(0)


@functools.partial(gluon_jit, do_not_specialize=("pieces", "blocks", "turn"))
def _hopper_attention_kernel(
    queries,  # (T, 3D) in blocks of 64 rows of a head
    keys,  # (T, 3D) in blocks of BLOCK_N rows
    out,  # (T, D) in blocks of 64 rows
    Bounds_ptr,  # (S+1,)
    pieces, blocks, turn, scale,
    HEADS: gl.constexpr, HEAD_DIM: gl.constexpr, BLOCK_DIM: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    CONSUMERS: gl.constexpr,
):  # fmt: skip
    # ruff: noqa: RUF005 (lists with stars in them do not compile)
    query_tiles = gl.allocate_shared_memory(queries.dtype, [2 * CONSUMERS] + queries.block_shape, queries.layout)
    tiles = gl.allocate_shared_memory(keys.dtype, [STAGES] + keys.block_shape, keys.layout)
    query_full = gl.allocate_shared_memory(gl.int64, [2, 1], hopper.mbarrier.MBarrierLayout())
    query_free = gl.allocate_shared_memory(gl.int64, [2, 1], hopper.mbarrier.MBarrierLayout())
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], hopper.mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], hopper.mbarrier.MBarrierLayout())
    for spot in gl.static_range(2):
        hopper.mbarrier.init(query_full.index(spot), count=1)
        hopper.mbarrier.init(query_free.index(spot), count=CONSUMERS)
    for slot in gl.static_range(STAGES):
        hopper.mbarrier.init(full.index(slot), count=1)
        hopper.mbarrier.init(free.index(slot), count=CONSUMERS)
    hopper.fence_async_shared()
    query_ring, ring = (query_tiles, query_full, query_free), (tiles, full, free)
    work = (Bounds_ptr, pieces, blocks, turn)
    if CONSUMERS == 2:
        gl.warp_specialize(
            [
                (_attend, (out, query_ring, ring, work, scale, 0,
                           HEADS, HEAD_DIM, BLOCK_DIM, BLOCK_N, STAGES, CONSUMERS)),
                (_attend, (out, query_ring, ring, work, scale, 1,
                           HEADS, HEAD_DIM, BLOCK_DIM, BLOCK_N, STAGES, CONSUMERS)),
                (produce, (queries, keys, query_ring, ring, work,
                           HEADS, HEAD_DIM, BLOCK_DIM, BLOCK_N, STAGES, CONSUMERS)),
            ],
            [4, 1],
            [240, 24],
        )  # fmt: skip
    else:
        gl.warp_specialize(
            [
                (_attend, (out, query_ring, ring, work, scale, 0,
                           HEADS, HEAD_DIM, BLOCK_DIM, BLOCK_N, STAGES, CONSUMERS)),
                (_attend, (out, query_ring, ring, work, scale, 1,
                           HEADS, HEAD_DIM, BLOCK_DIM, BLOCK_N, STAGES, CONSUMERS)),
                (_attend, (out, query_ring, ring, work, scale, 2,
                           HEADS, HEAD_DIM, BLOCK_DIM, BLOCK_N, STAGES, CONSUMERS)),
                (produce, (queries, keys, query_ring, ring, work,
                           HEADS, HEAD_DIM, BLOCK_DIM, BLOCK_N, STAGES, CONSUMERS)),
            ],
            [4, 4, 1],
            [160, 160, 24],
        )  # fmt: skip


def fits(qkv_T3D: torch.Tensor, head_dim: int, max_seqlen: int) -> bool:
    """True where `launch` can take it and is faster than the plain kernel: 16 bits on Hopper."""
    return max_seqlen >= LEAST_LENGTHS.get(head_dim, max_seqlen + 1) and uses_hopper(qkv_T3D)


def turn_for(programs: int, blocks: int) -> int:
    """The least turn with which each program comes round to every block of a sequence."""
    return next(turn for turn in range(blocks + 1) if math.gcd(programs + turn, blocks) == 1)


def launch(
    qkv_T3D: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    heads: int,
    scale: float,
    out_TD: torch.Tensor,
    tiles: HopperAttentionTiles | None = None,
) -> None:
    """Run the kernel; arguments as `varlen_attention` has them, the result written to ``out_TD``.

    Args:
        scale: factor on the logits in base 2: log2 e is in it.
        tiles: others than those of the table.
    """
    head_dim = out_TD.shape[1] // heads
    block_dim = triton.next_power_of_2(head_dim)
    consumers, key_rows = tiles or hopper_attention_tiles(head_dim, max_seqlen)
    row_bytes = 2 * block_dim
    stages = min(MAX_STAGES, (SHARED_MEMORY - 2 * consumers * ROWS * row_bytes) // (key_rows * row_bytes))
    blocks = triton.cdiv(max_seqlen, ROWS * consumers)
    pieces = blocks * heads * (cu_seqlens.numel() - 1)
    programs = min(pieces, multiprocessors(qkv_T3D))
    with launch_guard(qkv_T3D):
        launcher(_hopper_attention_kernel, (programs,))(
            *(describe(qkv_T3D, rows, head_dim, block_dim) for rows in (ROWS, key_rows)),
            describe(out_TD, ROWS, head_dim, block_dim),
            cu_seqlens, pieces, blocks, turn_for(programs, blocks), scale,
            heads, head_dim, block_dim, key_rows, stages, consumers,
            num_warps=4, maxnreg=168 if consumers == 2 else 128,
        )  # fmt: skip
