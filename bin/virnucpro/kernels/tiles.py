"""Tile choices per GPU architecture, fixed so that no process tunes at its start; ``make tune`` measures and rewrites
``tiles.json``."""

from __future__ import annotations

import functools
import json
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


class HopperAttentionTiles(NamedTuple):
    """Warpgroups of `hopper_attention` that have 64 rows of queries each, and rows of keys they have at a time."""

    consumers: int
    key_rows: int


EXACT = AttentionTiles(32, 32, 4, 1)  # fp32 operands: more registers and shared memory an element


@functools.cache
def read_table(kernel: str = "attention") -> dict[str, list[list[int]]]:
    """Rows of (head dimension, longest sequence, *tiles) ascending, by major compute capability.

    Of ``attention`` the tiles are `AttentionTiles`, of ``hopper_attention`` `HopperAttentionTiles`.
    """
    table: dict[str, list[list[int]]] = json.loads(TABLE.read_text())[kernel]
    return table


def hopper_attention_tiles(head_dim: int, max_seqlen: int) -> HopperAttentionTiles:
    """Tiles for a batch with this longest sequence."""
    return HopperAttentionTiles(*choose(read_table("hopper_attention")["9"], head_dim, max_seqlen))


def attention_tiles(qkv_T3D: torch.Tensor, head_dim: int, max_seqlen: int) -> AttentionTiles:
    """Tiles for a batch with this longest sequence on the tensor's device."""
    if qkv_T3D.dtype == torch.float32:
        return EXACT
    table = read_table()
    return AttentionTiles(*choose(table.get(str(capability(qkv_T3D)), table["default"]), head_dim, max_seqlen))


def choose(rows: list[list[int]], head_dim: int, max_seqlen: int) -> list[int]:
    """The tiles, of the rows for the next measured head dimension or the greatest, of the first that is long enough or
    the last."""
    dims = sorted({row[0] for row in rows})
    dim = next((dim for dim in dims if head_dim <= dim), dims[-1])
    fitting = [row for row in rows if row[0] == dim]
    return next((row for row in fitting if max_seqlen <= row[1]), fitting[-1])[2:]
