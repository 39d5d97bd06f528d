# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The matrix product of `hopper_linear`: which block computes which tile, who fills the ring of operands, who reads it.

A slot of the ring holds BLOCK_K input features, 128 bytes of them, of 128 tokens and of BLOCK_N outputs.
"""

from __future__ import annotations

from virnucpro.kernels.device import gl, gluon_jit, hopper


@gluon_jit
def tile_of(index, tiles_m, tiles_n, GROUP: gl.constexpr):
    """Tiles in groups of GROUP rows of tiles, so that those in flight share operands in the L2 cache."""
    per_group = GROUP * tiles_n
    first = (index // per_group) * GROUP
    rows = gl.minimum(tiles_m - first, GROUP)
    within = index % per_group
    return first + within % rows, within // rows


@gluon_jit
def copy_operands(
    a, b, step, tile_m, tile_n, barriers, rings, K,
    BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Fill slots of the ring with one product's operands; returns the number of the next slot."""
    full, free = barriers
    a_ring, b_ring = rings
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
def produce(
    a, a_low, b, b_low, barriers, rings, M, N, K,
    A_LOW: gl.constexpr, B_LOW: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    tiles_m, tiles_n = gl.cdiv(M, 128), gl.cdiv(N, BLOCK_N)
    step = 0
    for index in range(gl.program_id(0), tiles_m * tiles_n, gl.num_programs(0)):
        tile_m, tile_n = tile_of(index, tiles_m, tiles_n, 8)
        step = copy_operands(a, b, step, tile_m, tile_n, barriers, rings, K, BLOCK_N, BLOCK_K, STAGES)
        if A_LOW:
            step = copy_operands(a_low, b, step, tile_m, tile_n, barriers, rings, K, BLOCK_N, BLOCK_K, STAGES)
        if B_LOW:
            step = copy_operands(a, b_low, step, tile_m, tile_n, barriers, rings, K, BLOCK_N, BLOCK_K, STAGES)


@gluon_jit
def multiply(acc, step, barriers, rings, steps, UPPER: gl.constexpr, STAGES: gl.constexpr):
    """The sum of a tile's products, the last still in flight; returns with it the slot it reads."""
    full, free = barriers
    a_ring, b_ring = rings
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
