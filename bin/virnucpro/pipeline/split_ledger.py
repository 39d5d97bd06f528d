"""Last pass of a split: the ledger, one row for every record in input order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.output.ledger import LedgerWriter
from virnucpro.output.schema import STATUSES
from virnucpro.pipeline.split_columns import numbers, repeated, strings
from virnucpro.pipeline.split_spool import KEY_TYPE, REJECTED, REUSED, Block, Spool

_KEY_DIGITS: Final = 2 * KEY_TYPE.itemsize

Array = npt.NDArray[Any]


def write_ledger(spool: Spool, starts: npt.NDArray[np.int64], path: Path) -> int:
    """Write the ledger from the spool; return its rows (a task of ``Workers``).

    Args:
        starts: first unique index of each shard.
    """
    with LedgerWriter(path) as ledger:
        for block in spool.blocks:
            ledger.write(_rows(spool, block, starts))
    return ledger.rows


def _rows(spool: Spool, block: Block, starts: npt.NDArray[np.int64]) -> dict[str, Any]:
    span = block.first_ordinal, block.records
    status = spool.read("status", *span)
    lengths = spool.read("lengths", *span)
    unique = spool.read("unique", *span)
    rejected = status == REJECTED
    unplaced = rejected | (status == REUSED)
    headers = pa.ipc.open_stream(spool.load(block.headers)).read_all()
    limit = np.iinfo(np.int32).max if spool.residue_limit is None else spool.residue_limit
    rows = {
        "ordinal": numbers(np.arange(block.first_ordinal, block.first_ordinal + block.records)),
        "id": headers["id"],
        "description": headers["description"],
        "file": repeated(np.full(block.records, block.file_index), spool.files),
        "length": numbers(lengths, rejected),
        "truncated": numbers(lengths > limit, rejected),
        "unknown_residues": headers["unknown_residues"],
        "status": repeated(status, STATUSES),
        "reason": headers["reason"],
        "sequence_key": _hex_keys(spool.read("keys", *span), rejected),
        "unique_index": numbers(unique, unplaced),
        "shard": numbers((np.searchsorted(starts, unique, side="right") - 1).astype(np.int32), unplaced),
    }
    if spool.has("reuse_row"):
        for column in ("reuse_source", "reuse_row"):
            rows[column] = numbers(spool.read(column, *span), status != REUSED)
    return rows


def _hex_keys(keys: Array, rejected: Array) -> pa.StringArray:
    offsets = np.arange(0, (len(keys) + 1) * _KEY_DIGITS, _KEY_DIGITS, dtype=np.int32)
    return strings(keys.tobytes().hex().encode("ascii"), offsets, rejected)
