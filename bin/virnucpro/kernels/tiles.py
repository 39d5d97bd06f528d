"""Tile choices per GPU architecture, fixed so that no process tunes at its start; ``make tune`` measures and rewrites
``tiles.json``."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import torch

from virnucpro.kernels.device import capability

TABLE = Path(__file__).with_name("tiles.json")
EXACT = (32, 32, 4, 1)  # fp32 operands: more registers and shared memory an element


@functools.cache
def read_table() -> dict[str, list[list[int]]]:
    """Rows of (longest sequence, query rows, key rows, warps, stages) ascending, by major compute capability."""
    table: dict[str, list[list[int]]] = json.loads(TABLE.read_text())["attention"]
    return table


def attention_tiles(qkv_T3D: torch.Tensor, max_seqlen: int) -> tuple[int, int, int, int]:
    """(query rows, key rows, warps, stages) for a batch with this longest sequence on the tensor's device."""
    if qkv_T3D.dtype == torch.float32:
        return EXACT
    table = read_table()
    rows = table.get(str(capability(qkv_T3D)), table["default"])
    query_rows, key_rows, warps, stages = next((row[1:] for row in rows if max_seqlen <= row[0]), rows[-1][1:])
    return query_rows, key_rows, warps, stages
