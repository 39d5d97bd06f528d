"""Tile choices per GPU architecture, fixed so that no process tunes at its start.

Those of 9.0 were measured: ``make tune`` does it on the card at hand and rewrites ``tiles.json``. The others follow
from what the compiler makes of them: no register spilled, at least eight warps a multiprocessor and, on 8.0, whose
tensor cores outrun its shared memory, 32 rows of queries a warp where sequences are long enough to fill them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from virnucpro.kernels.device import capability

TABLE = Path(__file__).with_name("tiles.json")


class AttentionTiles(NamedTuple):
    """Rows of queries and of keys that one program of `varlen_attention` has at a time, its warps, its pipeline."""

    query_rows: int
    key_rows: int
    warps: int
    stages: int


class LinearTiles(NamedTuple):
    """Tokens and features of the tile of one program of `triton_linear`, the depth that it reads at a time, its warps,
    its pipeline."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


class HopperAttentionTiles(NamedTuple):
    """Warpgroups of `hopper_attention` that have 64 rows of queries each, and rows of keys they have at a time."""

    consumers: int
    key_rows: int


EXACT = AttentionTiles(32, 32, 4, 1)  # fp32 operands: more registers and shared memory an element


@functools.cache
def read_table(kernel: str = "attention") -> dict[str, list[list[int]]]:
    """Rows of (head dimension, longest sequence, *tiles) ascending, by compute capability.

    Of ``attention`` the tiles are `AttentionTiles`, of ``hopper_attention`` `HopperAttentionTiles`. Rows of ``linear``
    are (width of the input, *`LinearTiles`).
    """
    table: dict[str, list[list[int]]] = json.loads(TABLE.read_text())[kernel]
    return table


def hopper_attention_tiles(head_dim: int, max_seqlen: int) -> HopperAttentionTiles:
    """Tiles for a batch with this longest sequence."""
    return HopperAttentionTiles(*choose(read_table("hopper_attention")["9.0"], head_dim, max_seqlen))


def attention_tiles(qkv_T3D: torch.Tensor, head_dim: int, max_seqlen: int) -> AttentionTiles:
    """Tiles for a batch with this longest sequence on the tensor's device."""
    if qkv_T3D.dtype == torch.float32:
        return EXACT
    return AttentionTiles(*choose(rows_for(read_table(), capability(qkv_T3D)), head_dim, max_seqlen))


def linear_tiles(x_TD: torch.Tensor) -> LinearTiles | None:
    """Tiles for an input of this width on the tensor's device; None where PyTorch's product is to run, as for widths
    beyond the last row and those that a tile's depth does not divide."""
    width = x_TD.shape[1]
    rows = rows_for(read_table("linear"), capability(x_TD))
    found = next((LinearTiles(*row[1:]) for row in rows if width <= row[0]), None)
    return None if found is None or width % found.depth else found


def rows_for(table: Mapping[str, list[list[int]]], card: tuple[int, int]) -> list[list[int]]:
    """The rows of a compute capability, or of the one nearest below it of the same major version, or the default ones.

    8.9 has the shared memory of 8.6, 10.3 that of 10.0 and 12.1 that of 12.0.
    """
    known = [(int(major), int(minor)) for major, dot, minor in (name.partition(".") for name in table) if dot]
    near = max((each for each in known if each[0] == card[0] and each <= card), default=None)
    return table["default" if near is None else f"{near[0]}.{near[1]}"]


def choose(rows: list[list[int]], head_dim: int, max_seqlen: int) -> list[int]:
    """The tiles, of the rows for the next measured head dimension or the greatest, of the first that is long enough or
    the last."""
    dims = sorted({row[0] for row in rows})
    dim = next((dim for dim in dims if head_dim <= dim), dims[-1])
    fitting = [row for row in rows if row[0] == dim]
    return next((row for row in fitting if max_seqlen <= row[1]), fitting[-1])[2:]
