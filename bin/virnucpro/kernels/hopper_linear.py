# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""A linear layer for Hopper with its neighbours inside: LayerNorm before it, GELU, rotary or the residual after it.

One persistent block per multiprocessor walks over the output tiles. A producer warp fills a ring of operand tiles by
bulk copies; two consumer warpgroups own the upper and lower half of each tile and run apart from each other by up
to the depth of the ring, so that the epilogue of one overlaps the matrix product of the other.

Shapes: M rows (tokens), N output features, K input features. Statistics are (2, chunks, M) fp32: sums and sums of
squares of the rows, one chunk for each block of columns.
"""

from __future__ import annotations

import torch

from virnucpro.kernels.device import gl, gluon_jit, hopper, launch_guard, multiprocessors, tensor_descriptor
from virnucpro.kernels.linear_gelu import gelu_polynomial

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
def _produce(a, b, barriers, buffers, M, N, K, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr):
    full, free = barriers
    a_ring, b_ring = buffers
    tiles_m, tiles_n = gl.cdiv(M, 128), gl.cdiv(N, BLOCK_N)
    step = 0
    for index in range(gl.program_id(0), tiles_m * tiles_n, gl.num_programs(0)):
        tile_m, tile_n = _tile(index, tiles_m, tiles_n, 8)
        for k in range(0, K, BLOCK_K):
            slot = step % STAGES
            hopper.mbarrier.wait(free.index(slot), ((step // STAGES) & 1) ^ 1)
            ready = full.index(slot)
            hopper.mbarrier.expect(ready, 2 * a.block_type.nbytes + b.block_type.nbytes)
            hopper.tma.async_copy_global_to_shared(a, [tile_m * 128, k], ready, a_ring.index(2 * slot))
            hopper.tma.async_copy_global_to_shared(a, [tile_m * 128 + 64, k], ready, a_ring.index(2 * slot + 1))
            hopper.tma.async_copy_global_to_shared(b, [tile_n * BLOCK_N, k], ready, b_ring.index(slot))
            step += 1


@gluon_jit
def _columns(acc, BLOCK_N: gl.constexpr, WIDTH: gl.constexpr):
    """The accumulator in pieces of WIDTH columns; each thread keeps what it has."""
    left, right = gl.split(acc.reshape((64, 2, BLOCK_N // 2)).permute((0, 2, 1)))
    if 2 * WIDTH == BLOCK_N:
        return left, right
    else:
        first, second = gl.split(left.reshape((64, 2, BLOCK_N // 4)).permute((0, 2, 1)))
        third, fourth = gl.split(right.reshape((64, 2, BLOCK_N // 4)).permute((0, 2, 1)))
        return first, second, third, fourth


@gluon_jit
def _inverse_deviation(Statistics_ptr, row, M, features, eps, CHUNKS: gl.constexpr):
    total = gl.load(Statistics_ptr + row, mask=row < M, other=0.0)
    squares = gl.load(Statistics_ptr + CHUNKS * M + row, mask=row < M, other=0.0)
    for chunk in gl.static_range(1, CHUNKS):
        total += gl.load(Statistics_ptr + chunk * M + row, mask=row < M, other=0.0)
        squares += gl.load(Statistics_ptr + (CHUNKS + chunk) * M + row, mask=row < M, other=0.0)
    mean = total / features
    return gl.rsqrt(gl.maximum(squares / features - mean * mean, 0.0) + eps)


@gluon_jit
def _multiply(acc, step, barriers, buffers, K, UPPER: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr):
    """The products of one tile, the last still in flight; returns with it the slot it reads."""
    full, free = barriers
    a_ring, b_ring = buffers
    slot = step % STAGES
    hopper.mbarrier.wait(full.index(slot), (step // STAGES) & 1)
    acc = hopper.warpgroup_mma(
        a_ring.index(2 * slot + UPPER), b_ring.index(slot).permute((1, 0)), acc, use_acc=False, is_async=True
    )
    acc = hopper.warpgroup_mma_wait(1, [acc])
    step += 1
    for _ in range(BLOCK_K, K, BLOCK_K):
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
def _rotation(tables, top, M, HALF: gl.constexpr, PIECE: gl.constexpr, WIDTH: gl.constexpr):
    """Cosines and sines for 64 rows of one piece, laid out like the even columns of the accumulator."""
    Position_ptr, Cos_ptr, Sin_ptr = tables
    even, _odd = gl.split(gl.zeros((64, WIDTH), gl.float32, PIECE).reshape((64, WIDTH // 2, 2)))
    TABLE: gl.constexpr = even.type.layout
    token = top + gl.arange(0, 64, gl.SliceLayout(1, TABLE))
    position = gl.load(Position_ptr + token, mask=token < M, other=0)
    entry = position[:, None] * HALF + (gl.arange(0, WIDTH // 2, gl.SliceLayout(0, TABLE)) % HALF)[None, :]
    return gl.load(Cos_ptr + entry), gl.load(Sin_ptr + entry)


@gluon_jit
def _rotate(x, cos, sin, PIECE: gl.constexpr, WIDTH: gl.constexpr):
    even, odd = gl.split(x.reshape((64, WIDTH // 2, 2)))
    turned = gl.join(even * cos - odd * sin, odd * cos + even * sin).reshape((64, WIDTH))
    return gl.convert_layout(turned, PIECE, assert_trivial=True)


@gluon_jit
def _fetch_residual(c, buffers, ready, top, left, UPPER: gl.constexpr, WIDTH: gl.constexpr, PIECES: gl.constexpr):
    """Ask for the tile of the residual stream while the products run; the buffers' own stores are done with first."""
    hopper.tma.store_wait(0)
    hopper.mbarrier.expect(ready, 2 * c.block_type.nbytes)
    for piece in gl.static_range(PIECES):
        target = buffers.index(2 * UPPER + piece)
        hopper.tma.async_copy_global_to_shared(c, [top, left + piece * WIDTH], ready, target)


@gluon_jit
def _consume(
    c, low, barriers, buffers, c_buffers, residual_full, Bias_ptr, Statistics_ptr, tables, M, N, K, eps,
    HALF: gl.constexpr, UPPER: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr,
    WIDTH: gl.constexpr, EPILOGUE: gl.constexpr, NORM: gl.constexpr, CHUNKS: gl.constexpr, LOW: gl.constexpr,
):  # fmt: skip
    ACC: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    PIECE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDTH, 16])
    PIECES: gl.constexpr = BLOCK_N // WIDTH
    tiles_m, tiles_n = gl.cdiv(M, 128), gl.cdiv(N, BLOCK_N)
    acc = gl.zeros((64, BLOCK_N), gl.float32, ACC)
    step = 0
    turn = 0
    for index in range(gl.program_id(0), tiles_m * tiles_n, gl.num_programs(0)):
        tile_m, tile_n = _tile(index, tiles_m, tiles_n, 8)
        top = tile_m * 128 + 64 * UPPER
        if EPILOGUE == 3:
            _fetch_residual(c, c_buffers, residual_full.index(UPPER), top, tile_n * BLOCK_N, UPPER, WIDTH, PIECES)
        acc, step, slot = _multiply(acc, step, barriers, buffers, K, UPPER, BLOCK_K, STAGES)
        row = top + gl.arange(0, 64, gl.SliceLayout(1, PIECE))
        if NORM:
            scale = _inverse_deviation(Statistics_ptr, row, M, K, eps, CHUNKS)
        if EPILOGUE == 2:
            cos, sin = _rotation(tables, top, M, HALF, PIECE, WIDTH)
        acc = hopper.warpgroup_mma_wait(0, [acc])
        hopper.mbarrier.arrive(barriers[1].index(slot), count=1)
        if EPILOGUE == 3:
            hopper.mbarrier.wait(residual_full.index(UPPER), turn & 1)
            turn += 1
        total = gl.zeros((64,), gl.float32, gl.SliceLayout(1, PIECE))
        squares = gl.zeros((64,), gl.float32, gl.SliceLayout(1, PIECE))
        pieces = _columns(acc, BLOCK_N, WIDTH)
        for piece in gl.static_range(PIECES):
            left = tile_n * BLOCK_N + piece * WIDTH
            buffer = c_buffers.index(2 * UPPER + piece % 2)
            x = gl.convert_layout(pieces[piece], PIECE, assert_trivial=True)
            if NORM:
                x = x * scale[:, None]
            column = left + gl.arange(0, WIDTH, gl.SliceLayout(0, PIECE))
            x = x + gl.load(Bias_ptr + column, mask=column < N, other=0.0).to(gl.float32)[None, :]
            if EPILOGUE == 1:
                x = _gelu(x)
            if EPILOGUE == 2:  # noqa: SIM102 (decided by the compiler; the condition inside by the GPU)
                if left < 2 * K:
                    x = _rotate(x, cos, sin, PIECE, WIDTH)
            if EPILOGUE == 3:
                x = x + buffer.load(PIECE).to(gl.float32)
                total += gl.sum(x, 1)
                squares += gl.sum(x * x, 1)
            elif LOW:
                hopper.tma.store_wait(0)
            else:
                hopper.tma.store_wait(1)
            buffer.store(x.to(c.dtype))
            hopper.fence_async_shared()
            hopper.tma.async_copy_shared_to_global(c, [top, left], buffer)
            if LOW:  # noqa: SIM102 (as above)
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
    b,  # (N, K) descriptor, blocks of (BLOCK_N, BLOCK_K)
    c,  # (M, N) descriptor, blocks of (64, WIDTH)
    low,  # (M, 2K) descriptor, likewise: what rounding took from the first 2K columns of c, where LOW
    Bias_ptr,  # (N,)
    Statistics_ptr,  # (2, CHUNKS, M): read where NORM, written by the residual epilogue
    Position_ptr,  # (M,)
    Cos_ptr,  # (P, HALF)
    Sin_ptr,  # (P, HALF)
    M, N, K, eps,
    HALF: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr, WIDTH: gl.constexpr,
    EPILOGUE: gl.constexpr, NORM: gl.constexpr, CHUNKS: gl.constexpr, LOW: gl.constexpr,
    CONSUMER_REGISTERS: gl.constexpr,
):  # fmt: skip
    a_ring = gl.allocate_shared_memory(a.dtype, [2 * STAGES, 64, BLOCK_K], a.layout)
    b_ring = gl.allocate_shared_memory(b.dtype, [STAGES, BLOCK_N, BLOCK_K], b.layout)
    c_buffers = gl.allocate_shared_memory(c.dtype, [4, 64, WIDTH], c.layout)
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
            (_consume, (c, low, barriers, buffers, c_buffers, residual_full, Bias_ptr, Statistics_ptr, tables,
                        M, N, K, eps, HALF, 0, BLOCK_N, BLOCK_K, STAGES, WIDTH, EPILOGUE, NORM, CHUNKS, LOW)),
            (_consume, (c, low, barriers, buffers, c_buffers, residual_full, Bias_ptr, Statistics_ptr, tables,
                        M, N, K, eps, HALF, 1, BLOCK_N, BLOCK_K, STAGES, WIDTH, EPILOGUE, NORM, CHUNKS, LOW)),
            (_produce, (a, b, barriers, buffers, M, N, K, BLOCK_N, BLOCK_K, STAGES)),
        ],
        [4, 1],
        [CONSUMER_REGISTERS, 24],
    )  # fmt: skip


def launch(
    x_MK: torch.Tensor,
    weight_NK: torch.Tensor,
    bias_N: torch.Tensor,
    out_MN: torch.Tensor,
    epilogue: int,
    *,
    statistics: torch.Tensor | None = None,
    rotation: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
    low_M2K: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> None:
    """Run the kernel; all matrices contiguous and 16-bit, K and N multiples of 8.

    Args:
        x_MK: input.
        weight_NK: weight, each row of mean zero where the LayerNorm is inside.
        bias_N: bias of any float dtype.
        out_MN: result; with `RESIDUAL` it is added to.
        epilogue: `BIAS`, `GELU`, `ROTARY` or `RESIDUAL`.
        statistics: rows' sums and sums of squares: read for the LayerNorm before the layer, or written by `RESIDUAL`.
        rotation: for `ROTARY`, positions (M,), cosines and sines (P, half): the first 2K columns are turned.
        low_M2K: for `ROTARY`, takes what rounding took from the columns that are turned.
        eps: added to the variance.
    """
    (rows, features), outputs = x_MK.shape, weight_NK.shape[0]
    positions, cos, sin = rotation or (bias_N, bias_N, bias_N)
    half = cos.shape[1] if rotation else 1
    width, stages = (64, 4) if epilogue == ROTARY and half <= 32 else (128, 3)
    layout = gl.NVMMASharedLayout(128, 16, 2)
    chunks = statistics.shape[1] if statistics is not None else 1
    tiles = -(-rows // 128) * -(-outputs // BLOCK_N)
    with launch_guard(x_MK):
        _linear_kernel[(min(tiles, multiprocessors(x_MK)),)](
            tensor_descriptor.from_tensor(x_MK, [64, 64], layout),
            tensor_descriptor.from_tensor(weight_NK, [BLOCK_N, 64], layout),
            tensor_descriptor.from_tensor(out_MN, [64, width], layout),
            tensor_descriptor.from_tensor(out_MN if low_M2K is None else low_M2K, [64, width], layout),
            bias_N, statistics if statistics is not None else bias_N, positions, cos, sin,
            rows, outputs, features, eps,
            half, BLOCK_N, 64, stages, width, epilogue, epilogue != RESIDUAL and statistics is not None, chunks,
            low_M2K is not None, 240, num_warps=4, maxnreg=168,
        )  # fmt: skip
