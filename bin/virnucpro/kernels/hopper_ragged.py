# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The moving of `hopper_attention`: rows of one head of one sequence between memory and shared memory.

The copy engine checks an index against the extent of its dimension, and no sequence has a dimension of its own. So a
matrix of T rows is described with three row dimensions, whose offsets add up to the row wanted: counted from the end
of the sequence, its last row is the last index of the third dimension. What lies beyond is read as zeros and is not
written; what lies before is never asked for. The first dimension takes the third's 2^30 off again: 2^30 steps of
2^34 - stride elements are -2^30 strides and whole turns of the 64-bit address.

A ring is (tiles, full, free): tiles in shared memory with a barrier each that says that it is filled, or used up.
"""

from __future__ import annotations

from typing import Any

import torch

from virnucpro.kernels.device import gl, gluon_jit, hopper, tensor_descriptor

FAR = 1 << 30
_FAR = FAR if gl is None else gl.constexpr(FAR)


def describe(matrix: torch.Tensor, rows: int, head_dim: int, block_dim: int) -> Any:
    """Descriptor of a contiguous 16-bit (T, heads x head_dim) matrix, in blocks of ``rows`` rows of a head.

    Columns of a block beyond the head's are read as zeros; ``block_dim`` is a power of two.
    """
    stride = matrix.stride(0)
    shape, strides, block = [2 * FAR - 1, 2 * FAR - 1, FAR], [16 * FAR - stride, stride, stride], [1, 1, rows]
    if head_dim == block_dim:
        shape, strides, block = [*shape, matrix.shape[1]], [*strides, 1], [*block, head_dim]
    else:
        heads = matrix.shape[1] // head_dim
        shape, strides, block = [*shape, heads, head_dim], [*strides, head_dim, 1], [*block, 1, block_dim]
    layout = gl.NVMMASharedLayout(min(128, 2 * block_dim), 16, len(shape))
    return tensor_descriptor(matrix, shape, strides, block, layout)


@gluon_jit
def place_of(end, length, row, head, HEAD_DIM: gl.constexpr, BLOCK_DIM: gl.constexpr):
    """Coordinates of the block that begins with a row of the sequence that ends before row ``end`` of the matrix."""
    if HEAD_DIM == BLOCK_DIM:
        return [_FAR, end, _FAR - length + row, head * HEAD_DIM]
    else:
        return [_FAR, end, _FAR - length + row, head, 0]


@gluon_jit
def advance(slot, phase, SLOTS: gl.constexpr):
    """The next slot of a ring and the parity of its use."""
    slot += 1
    around = slot == SLOTS
    return gl.where(around, 0, slot), gl.where(around, phase ^ 1, phase)


@gluon_jit
def fetch(rows, ring, slot, phase, end, length, row, head, HEAD_DIM: gl.constexpr, BLOCK_DIM: gl.constexpr):
    """Fill a slot of the ring, once it is free."""
    tiles, full, free = ring
    hopper.mbarrier.wait(free.index(slot), phase ^ 1)
    hopper.mbarrier.expect(full.index(slot), rows.block_type.nbytes)
    place = place_of(end, length, row, head, HEAD_DIM, BLOCK_DIM)
    hopper.tma.async_copy_global_to_shared(rows, place, full.index(slot), tiles.index(slot))


@gluon_jit
def skip(ring, slot, phase, SLOTS: gl.constexpr):
    """Give a slot back unused."""
    _, full, free = ring
    hopper.mbarrier.wait(full.index(slot), phase)
    hopper.mbarrier.arrive(free.index(slot), count=1)
    return advance(slot, phase, SLOTS)
