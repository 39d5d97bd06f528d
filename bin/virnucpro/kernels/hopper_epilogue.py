# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""What `hopper_linear` does to its accumulators besides adding a bias: the LayerNorm's scale, rotary, the residual.

An accumulator of 64 rows is taken in pieces of WIDTH columns, each thread keeping what it has.
"""

from __future__ import annotations

import torch

from virnucpro.kernels.device import gl, gluon_jit, hopper
from virnucpro.kernels.high_low import HighLow
from virnucpro.kernels.rotary import Rotation

BIAS, GELU, ROTARY, RESIDUAL = range(4)
HEAD_DIMS = (16, 32, 64, 128)  # of which a piece of a tile holds a whole number


def check_epilogue(
    epilogue: int,
    out_MN: HighLow,
    statistics: torch.Tensor | None,
    rotation: Rotation | None,
    copy_MN: torch.Tensor | None,
) -> None:
    """Raise ValueError where `hopper_linear.launch` would not heed its arguments."""
    if epilogue not in (BIAS, GELU, ROTARY, RESIDUAL):
        raise ValueError(f"epilogue {epilogue} is none of BIAS, GELU, ROTARY and RESIDUAL")
    if (rotation is not None) != (epilogue == ROTARY):
        raise ValueError("a rotation is for the epilogue ROTARY, and that needs one")
    if epilogue == RESIDUAL and statistics is None:
        raise ValueError("the epilogue RESIDUAL needs statistics to write to")
    if copy_MN is not None and epilogue != RESIDUAL:
        raise ValueError("an e4m3 copy is for the epilogue RESIDUAL")
    if out_MN.low is None:
        return
    if epilogue not in (ROTARY, RESIDUAL):
        raise ValueError("low parts are for the epilogues ROTARY and RESIDUAL")
    if rotation is not None and 2 * rotation.cos.shape[1] not in HEAD_DIMS:
        raise ValueError(f"low parts of queries and keys need a head dimension of {', '.join(map(str, HEAD_DIMS))}")


def ends_with_piece(turned: int, width: int, out_MN: HighLow) -> bool:
    """True where no piece of ``width`` columns holds both columns that are turned and others.

    Raises:
        ValueError: one does, and the columns that are turned have low parts, which a pass afterwards cannot turn.
    """
    if turned % width and out_MN.low is not None:
        raise ValueError(f"low parts of {turned} columns of queries and keys need a multiple of {width}")
    return turned % width == 0


@gluon_jit
def columns(acc, BLOCK_N: gl.constexpr, WIDTH: gl.constexpr):
    """The accumulator in pieces of WIDTH columns; each thread keeps what it has."""
    if WIDTH == BLOCK_N:
        return (acc,)
    elif 2 * WIDTH == BLOCK_N:
        return gl.split(acc.reshape((64, 2, BLOCK_N // 2)).permute((0, 2, 1)))
    else:
        left, right = gl.split(acc.reshape((64, 2, BLOCK_N // 2)).permute((0, 2, 1)))
        first, second = gl.split(left.reshape((64, 2, BLOCK_N // 4)).permute((0, 2, 1)))
        third, fourth = gl.split(right.reshape((64, 2, BLOCK_N // 4)).permute((0, 2, 1)))
        return first, second, third, fourth


@gluon_jit
def inverse_deviation(Statistics_ptr, row, M, features, eps, CHUNKS: gl.constexpr):
    total = gl.load(Statistics_ptr + row, mask=row < M, other=0.0)
    squares = gl.load(Statistics_ptr + CHUNKS * M + row, mask=row < M, other=0.0)
    for chunk in gl.static_range(1, CHUNKS):
        total += gl.load(Statistics_ptr + chunk * M + row, mask=row < M, other=0.0)
        squares += gl.load(Statistics_ptr + (CHUNKS + chunk) * M + row, mask=row < M, other=0.0)
    mean = total / features
    return gl.rsqrt(gl.maximum(squares / features - mean * mean, 0.0) + eps)


@gluon_jit
def inverse_rms(Statistics_ptr, row, M, features, eps, CHUNKS: gl.constexpr):
    squares = gl.load(Statistics_ptr + CHUNKS * M + row, mask=row < M, other=0.0)
    for chunk in gl.static_range(1, CHUNKS):
        squares += gl.load(Statistics_ptr + (CHUNKS + chunk) * M + row, mask=row < M, other=0.0)
    return gl.rsqrt(squares / features + eps)


@gluon_jit
def coarse_gelu(x):
    """GELU within 3e-4, for a result in e4m3: x / 2 (1 + tanh(u)), u the cubic of Hendrycks and Gimpel, fitted anew."""
    angle = x * (0.0348 * x * x + 0.8)
    tangent = gl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=r,r", [angle], dtype=gl.float32, is_pure=True, pack=1
    )
    return 0.5 * x * tangent + 0.5 * x


@gluon_jit
def rotation_of(tables, top, left, M, HALF: gl.constexpr, PIECE: gl.constexpr, WIDTH: gl.constexpr):
    """Cosines and sines for 64 rows of the piece from column ``left``, laid out like the accumulator's even columns."""
    Position_ptr, Cos_ptr, Sin_ptr = tables
    even, _odd = gl.split(gl.zeros((64, WIDTH), gl.float32, PIECE).reshape((64, WIDTH // 2, 2)))
    TABLE: gl.constexpr = even.type.layout
    token = top + gl.arange(0, 64, gl.SliceLayout(1, TABLE))
    position = gl.load(Position_ptr + token, mask=token < M, other=0)
    pair = left // 2 + gl.arange(0, WIDTH // 2, gl.SliceLayout(0, TABLE))
    entry = position[:, None] * HALF + (pair % HALF)[None, :]
    return gl.load(Cos_ptr + entry), gl.load(Sin_ptr + entry)


@gluon_jit
def rotate(x, cos, sin, PIECE: gl.constexpr, WIDTH: gl.constexpr):
    even, odd = gl.split(x.reshape((64, WIDTH // 2, 2)))
    turned = gl.join(even * cos - odd * sin, odd * cos + even * sin).reshape((64, WIDTH))
    return gl.convert_layout(turned, PIECE, assert_trivial=True)


@gluon_jit
def fetch_residual(
    outputs, buffers, ready, top, left,
    UPPER: gl.constexpr, WIDTH: gl.constexpr, PIECES: gl.constexpr, LOW: gl.constexpr,
):  # fmt: skip
    """Ask for the tile of the residual stream while the products run; the buffers' own stores are done with first."""
    hopper.tma.store_wait(0)
    hopper.mbarrier.expect(ready, PIECES * (1 + LOW) * outputs[0].block_type.nbytes)
    for piece in gl.static_range(PIECES):
        for part in gl.static_range(1 + LOW):
            target = buffers[part].index(PIECES * UPPER + piece)
            hopper.tma.async_copy_global_to_shared(outputs[part], [top, left + piece * WIDTH], ready, target)
