# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""A linear layer for Hopper with its neighbours inside: LayerNorm before it, GELU, rotary or the residual after it.

One persistent block per multiprocessor walks over the output tiles. A producer warp fills a ring of operand tiles by
bulk copies; two consumer warpgroups own the upper and lower half of each tile and run apart from each other by up
to the depth of the ring, so that the epilogue of one overlaps the matrix product of the other. Operands in two parts
make up to three products, summed alike: high by high, low by high, high by low. Operands in e4m3 bring scales.

Shapes: M rows (tokens), N output features, K input features. Statistics are (2, chunks, M) fp32: sums and sums of
squares of the rows, one chunk for each block of columns.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from virnucpro.kernels.device import gl, gluon_jit, hopper, launch_guard, multiprocessors, tensor_descriptor
from virnucpro.kernels.gelu_polynomial import gelu_polynomial
from virnucpro.kernels.high_low import HighLow
from virnucpro.kernels.hopper_epilogue import (
    BIAS,
    GELU,
    RESIDUAL,
    ROTARY,
    check_epilogue,
    coarse_gelu,
    columns,
    ends_with_piece,
    fetch_residual,
    inverse_deviation,
    inverse_rms,
    rotate,
    rotation_of,
)
from virnucpro.kernels.hopper_product import multiply, produce, tile_of
from virnucpro.kernels.launching import launcher
from virnucpro.kernels.rotary import Rotation, rotary_

_gelu = gluon_jit(gelu_polynomial)

BLOCK_N = 256
LOW_RESIDUAL_BLOCK_N = 128  # as two tiles of the residual stream are kept beside the operands


@gluon_jit
def _finish(
    acc, scale, rotation, factor, vectors, left, N, K, PIECE: gl.constexpr, WIDTH: gl.constexpr,
    EPILOGUE: gl.constexpr, NORM: gl.constexpr, SCALED: gl.constexpr,
):  # fmt: skip
    """What the layer gives for a piece of the accumulator, the residual stream apart."""
    Bias_ptr, _, _, Weight_scale_ptr, _ = vectors
    x = gl.convert_layout(acc, PIECE, assert_trivial=True)
    column = left + gl.arange(0, WIDTH, gl.SliceLayout(0, PIECE))
    if SCALED:
        x = x * gl.load(Weight_scale_ptr + column, mask=column < N, other=0.0)[None, :]
    if NORM:
        x = x * scale[:, None]
    x = x + gl.load(Bias_ptr + column, mask=column < N, other=0.0).to(gl.float32)[None, :]
    if EPILOGUE == 1:
        x = coarse_gelu(x) * factor if SCALED else _gelu(x)
    if EPILOGUE == 2:  # noqa: SIM102 (decided by the compiler; the condition inside by the GPU)
        if left < 2 * K:
            x = rotate(x, rotation[0], rotation[1], PIECE, WIDTH)
    return x


@gluon_jit
def _put(
    x, copy_factor, outputs, buffers, top, left, K, INDEX: gl.constexpr, UPPER: gl.constexpr, BUFFERS: gl.constexpr,
    EPILOGUE: gl.constexpr, LOW: gl.constexpr, COPY: gl.constexpr,
):  # fmt: skip
    """Send the piece of number INDEX out, by way of shared memory, with its low part or its e4m3 copy."""
    c, low, copy = outputs
    c_buffers, low_buffers, copy_buffers = buffers
    buffer = c_buffers.index(BUFFERS * UPPER + INDEX % BUFFERS)
    if EPILOGUE != 3:
        hopper.tma.store_wait(0 if LOW else 1)
    buffer.store(x.to(c.dtype))
    if COPY:
        if INDEX > 0:
            hopper.tma.store_wait(0)
        copy_buffers.index(UPPER).store((x * copy_factor[:, None]).to(copy.dtype))
    hopper.fence_async_shared()
    hopper.tma.async_copy_shared_to_global(c, [top, left], buffer)
    if COPY:
        hopper.tma.async_copy_shared_to_global(copy, [top, left], copy_buffers.index(UPPER))
    if LOW:  # noqa: SIM102 (as above)
        if EPILOGUE == 3 or left < 2 * K:
            if EPILOGUE == 3:
                rest = low_buffers.index(BUFFERS * UPPER + INDEX)
            else:
                rest = c_buffers.index(2 * UPPER + 1 - INDEX % 2)
            rest.store((x - x.to(c.dtype).to(gl.float32)).to(c.dtype))
            hopper.fence_async_shared()
            hopper.tma.async_copy_shared_to_global(low, [top, left], rest)


@gluon_jit
def _consume(
    outputs, barriers, rings, buffers, residual_full, vectors, tables, M, N, K, eps, factor,
    PRODUCTS: gl.constexpr, HALF: gl.constexpr, UPPER: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr, WIDTH: gl.constexpr, EPILOGUE: gl.constexpr, NORM: gl.constexpr, CHUNKS: gl.constexpr,
    LOW: gl.constexpr, COPY: gl.constexpr, SCALED: gl.constexpr,
):  # fmt: skip
    _, Statistics_ptr, Earlier_ptr, _, Row_scale_ptr = vectors
    ACC: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 32 if SCALED else 16])
    PIECE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDTH, 16])
    PIECES: gl.constexpr = BLOCK_N // WIDTH
    BUFFERS: gl.constexpr = PIECES if EPILOGUE == 3 else 2
    tiles_m, tiles_n = gl.cdiv(M, 128), gl.cdiv(N, BLOCK_N)
    acc = gl.zeros((64, BLOCK_N), gl.float32, ACC)
    step = 0
    turn = 0
    for index in range(gl.program_id(0), tiles_m * tiles_n, gl.num_programs(0)):
        tile_m, tile_n = tile_of(index, tiles_m, tiles_n, 8)
        top = tile_m * 128 + 64 * UPPER
        if EPILOGUE == 3:
            fetch_residual(
                outputs, buffers, residual_full.index(UPPER), top, tile_n * BLOCK_N, UPPER, WIDTH, PIECES, LOW
            )
        acc, step, slot = multiply(acc, step, barriers, rings, PRODUCTS * gl.cdiv(K, BLOCK_K), UPPER, STAGES)
        row = top + gl.arange(0, 64, gl.SliceLayout(1, PIECE))
        scale = None
        copy_factor = factor
        rotation = None
        if NORM:
            scale = inverse_deviation(Statistics_ptr, row, M, K, eps, CHUNKS)
            if SCALED:
                scale *= gl.load(Row_scale_ptr + row, mask=row < M, other=0.0)
        if COPY:
            copy_factor *= inverse_rms(Earlier_ptr, row, M, N, eps, CHUNKS)
        if EPILOGUE == 2 and WIDTH % (2 * HALF) == 0:
            rotation = rotation_of(tables, top, 0, M, HALF, PIECE, WIDTH)
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
            if EPILOGUE == 2 and WIDTH % (2 * HALF) != 0:
                rotation = rotation_of(tables, top, left, M, HALF, PIECE, WIDTH)
            x = _finish(
                pieces[piece], scale, rotation, factor, vectors, left, N, K, PIECE, WIDTH, EPILOGUE, NORM, SCALED
            )
            if EPILOGUE == 3:
                for part in gl.static_range(1 + LOW):
                    x = x + buffers[part].index(BUFFERS * UPPER + piece).load(PIECE).to(gl.float32)
                total += gl.sum(x, 1)
                squares += gl.sum(x * x, 1)
            _put(x, copy_factor, outputs, buffers, top, left, K, piece, UPPER, BUFFERS, EPILOGUE, LOW, COPY)
        if EPILOGUE == 3:
            gl.store(Statistics_ptr + tile_n * M + row, total, mask=row < M)
            gl.store(Statistics_ptr + (tiles_n + tile_n) * M + row, squares, mask=row < M)
        if COPY:  # noqa: SIM102 (as above)
            if tile_n == 0:
                gl.store(Row_scale_ptr + row, 1.0 / copy_factor, mask=row < M)
    hopper.tma.store_wait(0)


@functools.partial(gluon_jit, do_not_specialize=("M",))
def _linear_kernel(
    a,  # (M, K) descriptor, blocks of (64, BLOCK_K)
    a_low,  # likewise, where A_LOW
    b,  # (N, K) descriptor, blocks of (BLOCK_N, BLOCK_K)
    b_low,  # likewise, where B_LOW
    c,  # (M, N) descriptor, blocks of (64, WIDTH)
    low,  # where LOW, likewise: what rounding took from c; with rotary (M, 2K), of its first 2K columns
    copy,  # (M, N) e4m3 descriptor like c's: the residual stream once more, where COPY
    Bias_ptr,  # (N,)
    Statistics_ptr,  # (2, CHUNKS, M): read where NORM, written by the residual epilogue
    Earlier_ptr,  # (2, CHUNKS, M): of the residual stream before this layer, where COPY
    Weight_scale_ptr,  # (N,), where SCALED
    Row_scale_ptr,  # (M,): of a, read where SCALED and NORM; of copy, written where COPY
    Position_ptr,  # (M,)
    Cos_ptr,  # (P, HALF)
    Sin_ptr,  # (P, HALF)
    M, N, K, eps, factor,
    HALF: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr, WIDTH: gl.constexpr,
    EPILOGUE: gl.constexpr, NORM: gl.constexpr, CHUNKS: gl.constexpr, LOW: gl.constexpr, COPY: gl.constexpr,
    A_LOW: gl.constexpr, B_LOW: gl.constexpr, SCALED: gl.constexpr, CONSUMER_REGISTERS: gl.constexpr,
):  # fmt: skip
    a_ring = gl.allocate_shared_memory(a.dtype, [2 * STAGES, 64, BLOCK_K], a.layout)
    b_ring = gl.allocate_shared_memory(b.dtype, [STAGES, BLOCK_N, BLOCK_K], b.layout)
    BUFFERS: gl.constexpr = BLOCK_N // WIDTH if EPILOGUE == 3 else 2
    LOW_RESIDUAL: gl.constexpr = LOW and EPILOGUE == 3
    c_buffers = gl.allocate_shared_memory(c.dtype, [2 * BUFFERS, 64, WIDTH], c.layout)
    low_buffers = gl.allocate_shared_memory(c.dtype, [2 * BUFFERS, 64, WIDTH], c.layout) if LOW_RESIDUAL else c_buffers
    copy_buffers = gl.allocate_shared_memory(copy.dtype, [2, 64, WIDTH], copy.layout) if COPY else c_buffers
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], hopper.mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], hopper.mbarrier.MBarrierLayout())
    residual_full = gl.allocate_shared_memory(gl.int64, [2, 1], hopper.mbarrier.MBarrierLayout())
    for slot in gl.static_range(STAGES):
        hopper.mbarrier.init(full.index(slot), count=1)
        hopper.mbarrier.init(free.index(slot), count=2)
    for half in gl.static_range(2):
        hopper.mbarrier.init(residual_full.index(half), count=1)
    hopper.fence_async_shared()
    barriers, rings, tables = (full, free), (a_ring, b_ring), (Position_ptr, Cos_ptr, Sin_ptr)
    outputs, buffers = (c, low, copy), (c_buffers, low_buffers, copy_buffers)
    vectors = (Bias_ptr, Statistics_ptr, Earlier_ptr, Weight_scale_ptr, Row_scale_ptr)
    gl.warp_specialize(
        [
            (_consume, (outputs, barriers, rings, buffers, residual_full, vectors, tables, M, N, K, eps, factor,
                        1 + A_LOW + B_LOW, HALF, 0, BLOCK_N, BLOCK_K, STAGES, WIDTH, EPILOGUE, NORM, CHUNKS,
                        LOW, COPY, SCALED)),
            (_consume, (outputs, barriers, rings, buffers, residual_full, vectors, tables, M, N, K, eps, factor,
                        1 + A_LOW + B_LOW, HALF, 1, BLOCK_N, BLOCK_K, STAGES, WIDTH, EPILOGUE, NORM, CHUNKS,
                        LOW, COPY, SCALED)),
            (produce, (a, a_low, b, b_low, barriers, rings, M, N, K, A_LOW, B_LOW, BLOCK_N, BLOCK_K, STAGES)),
        ],
        [4, 1],
        [CONSUMER_REGISTERS, 24],
    )  # fmt: skip


@functools.cache
def _layout(bits: int) -> Any:
    return gl.NVMMASharedLayout(128, bits, 2)


def _describe(matrix: torch.Tensor | None, *block: int) -> Any:
    if matrix is None:
        return None
    return tensor_descriptor.from_tensor(matrix, list(block), _layout(8 * matrix.element_size()))


def _tiling(out_MN: HighLow, epilogue: int, half: int) -> tuple[int, int, int]:
    """Columns of a piece and of a tile, and as many slots of the ring as the tiles of the output leave room for."""
    if epilogue == RESIDUAL and out_MN.low is not None:
        return 128, LOW_RESIDUAL_BLOCK_N, 5
    if epilogue == ROTARY and half <= 32:
        return 64, BLOCK_N, 4
    return 128, BLOCK_N, 4 if epilogue == GELU and out_MN.high.element_size() == 1 else 3


def launch(
    x_MK: HighLow,
    weight_NK: HighLow,
    bias_N: torch.Tensor,
    out_MN: HighLow,
    epilogue: int,
    *,
    statistics: torch.Tensor | None = None,
    rotation: Rotation | None = None,
    eps: float = 1e-5,
    weight_scale_N: torch.Tensor | None = None,
    row_scale_M: torch.Tensor | None = None,
    factor: float = 1.0,
    copy_MN: torch.Tensor | None = None,
    earlier: torch.Tensor | None = None,
) -> None:
    """Run the kernel; all matrices contiguous, x and weight of one type, 16-bit or e4m3; K and N multiples of 16.

    Args:
        x_MK: input; its low part is a second product.
        weight_NK: weight, each row of mean zero where the LayerNorm is inside; its low part is one more product.
        bias_N: bias of any float dtype.
        out_MN: result; with `RESIDUAL` it is added to. A low part takes what rounding took: with `ROTARY` (M, 2K),
            of the columns that are turned; with `RESIDUAL` (M, N), and it is added to as well.
        epilogue: `BIAS`, `GELU`, `ROTARY` or `RESIDUAL`.
        statistics: rows' sums and sums of squares: read for the LayerNorm before the layer, or written by `RESIDUAL`.
        rotation: for `ROTARY`, of the rows: the first 2K columns are turned, by the kernel or, where they end inside a
            piece of a tile, by a pass after it; low parts only by the kernel.
        eps: added to the variance.
        weight_scale_N: fp32 factors of an e4m3 weight's rows, together with that of ``x_MK`` where it has but one.
        row_scale_M: fp32 factors: of the rows of an e4m3 ``x_MK`` under a LayerNorm, or, written, of ``copy_MN``.
        factor: for `GELU` in e4m3, what the result is multiplied by before it is rounded; with ``copy_MN`` the root
            mean square that its rows would have if they were what they had been.
        copy_MN: for `RESIDUAL`, takes the result once more in e4m3.
        earlier: with ``copy_MN``, the statistics of ``out_MN`` before the call, as many chunks as ``statistics``.
    """
    check_epilogue(epilogue, out_MN, statistics, rotation, copy_MN)
    (rows, features), outputs, turned_after = x_MK.high.shape, weight_NK.high.shape[0], None
    if rotation and not ends_with_piece(2 * features, _tiling(out_MN, epilogue, rotation.cos.shape[1])[0], out_MN):
        epilogue, rotation, turned_after = BIAS, None, rotation
    half = rotation.cos.shape[1] if rotation else 1
    width, block_n, stages = _tiling(out_MN, epilogue, half)
    chunks = statistics.shape[1] if statistics is not None else 1
    tiles = -(-rows // 128) * -(-outputs // block_n)
    depth = 128 // x_MK.high.element_size()
    with launch_guard(x_MK.high):
        launcher(_linear_kernel, (min(tiles, multiprocessors(x_MK.high)),))(
            *(_describe(part, 64, depth) for part in x_MK),
            *(_describe(part, block_n, depth) for part in weight_NK),
            *(_describe(part, 64, width) for part in (*out_MN, copy_MN)),
            bias_N, statistics, earlier, weight_scale_N, row_scale_M, *(rotation or (None, None, None)),
            rows, outputs, features, eps, factor,
            half, block_n, depth, stages, width, epilogue, epilogue != RESIDUAL and statistics is not None, chunks,
            out_MN.low is not None, copy_MN is not None, x_MK.low is not None, weight_NK.low is not None,
            weight_scale_N is not None, 240, num_warps=4, maxnreg=168,
        )  # fmt: skip
    if turned_after:
        rotary_(out_MN.high, turned_after, heads=features // (2 * turned_after.cos.shape[1]), adjacent=True)
