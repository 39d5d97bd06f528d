# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""A linear layer for Hopper with its neighbours inside: LayerNorm before it, GELU, rotary or the residual after it.

One persistent block per multiprocessor walks over the output tiles. A producer warp fills a ring of operand tiles by
bulk copies; two consumer warpgroups own the upper and lower half of each tile and run apart from each other by up
to the depth of the ring, so that the epilogue of one overlaps the matrix product of the other. Operands in two parts
make up to three products, summed alike: high by high, low by high, high by low.

Shapes: M rows (tokens), N output features, K input features. Statistics are (2, chunks, M) fp32: sums and sums of
squares of the rows, one chunk for each block of columns.
"""

from __future__ import annotations

from typing import Any

import torch

from virnucpro.kernels.device import gl, gluon_jit, hopper, launch_guard, multiprocessors, tensor_descriptor
from virnucpro.kernels.hopper_epilogue import columns, fetch_residual, inverse_deviation, rotate, rotation_of
from virnucpro.kernels.linear_gelu import gelu_polynomial
from virnucpro.kernels.parts import Parts

_gelu = gluon_jit(gelu_polynomial)

BIAS, GELU, ROTARY, RESIDUAL = range(4)
BLOCK_N = 256


@gluon_jit
def _tile(index, tiles_m, tiles_n, GROUP: gl.constexpr):
    """Tiles in groups of GROUP rows of tiles, so that those in flight share operands in the L2 cache."""
    per_group = GROUP * tiles_n
    first = (index // per_group) * GROUP
    rows = gl.minimum(tiles_m - first, GROUP)
    within = index % per_group
    return first + within % rows, within // rows


@gluon_jit
def _copy_operands(
    a, b, step, tile_m, tile_n, barriers, buffers, K,
    BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Fill slots of the ring with one product's operands; returns the number of the next slot."""
    full, free = barriers
    a_ring, b_ring = buffers
    for k in range(0, K, BLOCK_K):
        slot = step % STAGES
        hopper.mbarrier.wait(free.index(slot), ((step // STAGES) & 1) ^ 1)
        ready = full.index(slot)
        hopper.mbarrier.expect(ready, 2 * a.block_type.nbytes + b.block_type.nbytes)
        hopper.tma.async_copy_global_to_shared(a, [tile_m * 128, k], ready, a_ring.index(2 * slot))
        hopper.tma.async_copy_global_to_shared(a, [tile_m * 128 + 64, k], ready, a_ring.index(2 * slot + 1))
        hopper.tma.async_copy_global_to_shared(b, [tile_n * BLOCK_N, k], ready, b_ring.index(slot))
        step += 1
    return step


@gluon_jit
def _produce(
    a, a_low, b, b_low, barriers, buffers, M, N, K,
    A_LOW: gl.constexpr, B_LOW: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    tiles_m, tiles_n = gl.cdiv(M, 128), gl.cdiv(N, BLOCK_N)
    step = 0
    for index in range(gl.program_id(0), tiles_m * tiles_n, gl.num_programs(0)):
        tile_m, tile_n = _tile(index, tiles_m, tiles_n, 8)
        step = _copy_operands(a, b, step, tile_m, tile_n, barriers, buffers, K, BLOCK_N, BLOCK_K, STAGES)
        if A_LOW:
            step = _copy_operands(a_low, b, step, tile_m, tile_n, barriers, buffers, K, BLOCK_N, BLOCK_K, STAGES)
        if B_LOW:
            step = _copy_operands(a, b_low, step, tile_m, tile_n, barriers, buffers, K, BLOCK_N, BLOCK_K, STAGES)


@gluon_jit
def _multiply(acc, step, barriers, buffers, steps, UPPER: gl.constexpr, STAGES: gl.constexpr):
    """The sum of a tile's products, the last still in flight; returns with it the slot it reads."""
    full, free = barriers
    a_ring, b_ring = buffers
    slot = step % STAGES
    hopper.mbarrier.wait(full.index(slot), (step // STAGES) & 1)
    acc = hopper.warpgroup_mma(
        a_ring.index(2 * slot + UPPER), b_ring.index(slot).permute((1, 0)), acc, use_acc=False, is_async=True
    )
    acc = hopper.warpgroup_mma_wait(1, [acc])
    step += 1
    for _ in range(1, steps):
        previous = slot
        slot = step % STAGES
        hopper.mbarrier.wait(full.index(slot), (step // STAGES) & 1)
        acc = hopper.warpgroup_mma(
            a_ring.index(2 * slot + UPPER), b_ring.index(slot).permute((1, 0)), acc, is_async=True
        )
        acc = hopper.warpgroup_mma_wait(1, [acc])
        hopper.mbarrier.arrive(free.index(previous), count=1)
        step += 1
    return acc, step, slot


@gluon_jit
def _consume(
    c, low, Low_ptr, barriers, buffers, c_buffers, residual_full, Bias_ptr, Statistics_ptr, tables, M, N, K, eps,
    PRODUCTS: gl.constexpr, HALF: gl.constexpr, UPPER: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr, WIDTH: gl.constexpr, EPILOGUE: gl.constexpr, NORM: gl.constexpr, CHUNKS: gl.constexpr,
    LOW: gl.constexpr,
):  # fmt: skip
    ACC: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    PIECE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDTH, 16])
    PIECES: gl.constexpr = BLOCK_N // WIDTH
    BUFFERS: gl.constexpr = PIECES if EPILOGUE == 3 else 2
    tiles_m, tiles_n = gl.cdiv(M, 128), gl.cdiv(N, BLOCK_N)
    acc = gl.zeros((64, BLOCK_N), gl.float32, ACC)
    step = 0
    turn = 0
    for index in range(gl.program_id(0), tiles_m * tiles_n, gl.num_programs(0)):
        tile_m, tile_n = _tile(index, tiles_m, tiles_n, 8)
        top = tile_m * 128 + 64 * UPPER
        if EPILOGUE == 3:
            fetch_residual(c, c_buffers, residual_full.index(UPPER), top, tile_n * BLOCK_N, UPPER, WIDTH, PIECES)
        acc, step, slot = _multiply(acc, step, barriers, buffers, PRODUCTS * gl.cdiv(K, BLOCK_K), UPPER, STAGES)
        row = top + gl.arange(0, 64, gl.SliceLayout(1, PIECE))
        if NORM:
            scale = inverse_deviation(Statistics_ptr, row, M, K, eps, CHUNKS)
        if EPILOGUE == 2:
            cos, sin = rotation_of(tables, top, M, HALF, PIECE, WIDTH)
        acc = hopper.warpgroup_mma_wait(0, [acc])
        hopper.mbarrier.arrive(barriers[1].index(slot), count=1)
        if EPILOGUE == 3:
            hopper.mbarrier.wait(residual_full.index(UPPER), turn & 1)
            turn += 1
        total = gl.zeros((64,), gl.float32, gl.SliceLayout(1, PIECE))
        squares = gl.zeros((64,), gl.float32, gl.SliceLayout(1, PIECE))
        pieces = columns(acc, BLOCK_N, WIDTH)
        for piece in gl.static_range(PIECES):
            left = tile_n * BLOCK_N + piece * WIDTH
            buffer = c_buffers.index(BUFFERS * UPPER + piece % BUFFERS)
            x = gl.convert_layout(pieces[piece], PIECE, assert_trivial=True)
            if NORM:
                x = x * scale[:, None]
            column = left + gl.arange(0, WIDTH, gl.SliceLayout(0, PIECE))
            x = x + gl.load(Bias_ptr + column, mask=column < N, other=0.0).to(gl.float32)[None, :]
            if EPILOGUE == 1:
                x = _gelu(x)
            if EPILOGUE == 2:  # noqa: SIM102 (decided by the compiler; the condition inside by the GPU)
                if left < 2 * K:
                    x = rotate(x, cos, sin, PIECE, WIDTH)
            if EPILOGUE == 3:
                x = x + buffer.load(PIECE).to(gl.float32)
                if LOW:
                    offset = row[:, None] * N + column[None, :]
                    inside = (row < M)[:, None] & (column < N)[None, :]
                    x = x + gl.load(Low_ptr + offset, mask=inside, other=0.0).to(gl.float32)
                total += gl.sum(x, 1)
                squares += gl.sum(x * x, 1)
            elif LOW:
                hopper.tma.store_wait(0)
            else:
                hopper.tma.store_wait(1)
            buffer.store(x.to(c.dtype))
            hopper.fence_async_shared()
            hopper.tma.async_copy_shared_to_global(c, [top, left], buffer)
            if LOW and EPILOGUE == 3:
                gl.store(Low_ptr + offset, (x - x.to(c.dtype).to(gl.float32)).to(c.dtype), mask=inside)
            elif LOW:  # noqa: SIM102 (as above)
                if left < 2 * K:
                    rest = c_buffers.index(2 * UPPER + 1 - piece % 2)
                    rest.store((x - x.to(c.dtype).to(gl.float32)).to(c.dtype))
                    hopper.fence_async_shared()
                    hopper.tma.async_copy_shared_to_global(low, [top, left], rest)
        if EPILOGUE == 3:
            gl.store(Statistics_ptr + tile_n * M + row, total, mask=row < M)
            gl.store(Statistics_ptr + (tiles_n + tile_n) * M + row, squares, mask=row < M)
    hopper.tma.store_wait(0)


@gluon_jit
def _linear_kernel(
    a,  # (M, K) descriptor, blocks of (64, BLOCK_K)
    a_low,  # likewise, where A_LOW
    b,  # (N, K) descriptor, blocks of (BLOCK_N, BLOCK_K)
    b_low,  # likewise, where B_LOW
    c,  # (M, N) descriptor, blocks of (64, WIDTH)
    low,  # (M, 2K) descriptor, likewise: what rounding took from the first 2K columns of c, where LOW and rotary
    Low_ptr,  # (M, N): what rounding took from the residual stream, where LOW and the residual is added
    Bias_ptr,  # (N,)
    Statistics_ptr,  # (2, CHUNKS, M): read where NORM, written by the residual epilogue
    Position_ptr,  # (M,)
    Cos_ptr,  # (P, HALF)
    Sin_ptr,  # (P, HALF)
    M, N, K, eps,
    HALF: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr, WIDTH: gl.constexpr,
    EPILOGUE: gl.constexpr, NORM: gl.constexpr, CHUNKS: gl.constexpr, LOW: gl.constexpr,
    A_LOW: gl.constexpr, B_LOW: gl.constexpr, CONSUMER_REGISTERS: gl.constexpr,
):  # fmt: skip
    a_ring = gl.allocate_shared_memory(a.dtype, [2 * STAGES, 64, BLOCK_K], a.layout)
    b_ring = gl.allocate_shared_memory(b.dtype, [STAGES, BLOCK_N, BLOCK_K], b.layout)
    BUFFERS: gl.constexpr = BLOCK_N // WIDTH if EPILOGUE == 3 else 2
    c_buffers = gl.allocate_shared_memory(c.dtype, [2 * BUFFERS, 64, WIDTH], c.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], hopper.mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], hopper.mbarrier.MBarrierLayout())
    residual_full = gl.allocate_shared_memory(gl.int64, [2, 1], hopper.mbarrier.MBarrierLayout())
    for slot in gl.static_range(STAGES):
        hopper.mbarrier.init(full.index(slot), count=1)
        hopper.mbarrier.init(free.index(slot), count=2)
    for half in gl.static_range(2):
        hopper.mbarrier.init(residual_full.index(half), count=1)
    hopper.fence_async_shared()
    barriers, buffers, tables = (full, free), (a_ring, b_ring), (Position_ptr, Cos_ptr, Sin_ptr)
    gl.warp_specialize(
        [
            (_consume, (c, low, Low_ptr, barriers, buffers, c_buffers, residual_full, Bias_ptr, Statistics_ptr, tables,
                        M, N, K, eps, 1 + A_LOW + B_LOW, HALF, 0, BLOCK_N, BLOCK_K, STAGES, WIDTH, EPILOGUE, NORM,
                        CHUNKS, LOW)),
            (_consume, (c, low, Low_ptr, barriers, buffers, c_buffers, residual_full, Bias_ptr, Statistics_ptr, tables,
                        M, N, K, eps, 1 + A_LOW + B_LOW, HALF, 1, BLOCK_N, BLOCK_K, STAGES, WIDTH, EPILOGUE, NORM,
                        CHUNKS, LOW)),
            (_produce, (a, a_low, b, b_low, barriers, buffers, M, N, K, A_LOW, B_LOW, BLOCK_N, BLOCK_K, STAGES)),
        ],
        [4, 1],
        [CONSUMER_REGISTERS, 24],
    )  # fmt: skip


def launch(
    x_MK: Parts,
    weight_NK: Parts,
    bias_N: torch.Tensor,
    out_MN: Parts,
    epilogue: int,
    *,
    statistics: torch.Tensor | None = None,
    rotation: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
    eps: float = 1e-5,
) -> None:
    """Run the kernel; all matrices contiguous and 16-bit, K and N multiples of 8.

    Args:
        x_MK: input; its low part is a second product.
        weight_NK: weight, each row of mean zero where the LayerNorm is inside; its low part is one more product.
        bias_N: bias of any float dtype.
        out_MN: result; with `RESIDUAL` it is added to. A low part takes what rounding took: with `ROTARY` (M, 2K),
            of the columns that are turned; with `RESIDUAL` (M, N), and it is added to as well.
        epilogue: `BIAS`, `GELU`, `ROTARY` or `RESIDUAL`.
        statistics: rows' sums and sums of squares: read for the LayerNorm before the layer, or written by `RESIDUAL`.
        rotation: for `ROTARY`, positions (M,), cosines and sines (P, half): the first 2K columns are turned.
        eps: added to the variance.
    """
    (rows, features), outputs = x_MK.high.shape, weight_NK.high.shape[0]
    positions, cos, sin = rotation or (bias_N, bias_N, bias_N)
    half = cos.shape[1] if rotation else 1
    narrow = (epilogue == ROTARY and half <= 32) or (epilogue == RESIDUAL and out_MN.low is not None)
    width = 64 if narrow else 128
    stages = 4 if narrow and epilogue == ROTARY else 3
    layout = gl.NVMMASharedLayout(128, 16, 2)
    chunks = statistics.shape[1] if statistics is not None else 1
    tiles = -(-rows // 128) * -(-outputs // BLOCK_N)

    def descriptors(matrix: Parts, block: list[int]) -> list[Any]:
        high = tensor_descriptor.from_tensor(matrix.high, block, layout)
        return [high, high if matrix.low is None else tensor_descriptor.from_tensor(matrix.low, block, layout)]

    with launch_guard(x_MK.high):
        _linear_kernel[(min(tiles, multiprocessors(x_MK.high)),)](
            *descriptors(x_MK, [64, 64]),
            *descriptors(weight_NK, [BLOCK_N, 64]),
            *descriptors(out_MN, [64, width]),
            out_MN.high if out_MN.low is None else out_MN.low,
            bias_N, statistics if statistics is not None else bias_N, positions, cos, sin,
            rows, outputs, features, eps,
            half, BLOCK_N, 64, stages, width, epilogue, epilogue != RESIDUAL and statistics is not None, chunks,
            out_MN.low is not None, x_MK.low is not None, weight_NK.low is not None, 240, num_warps=4, maxnreg=168,
        )  # fmt: skip
