"""Last pass of a split: the ledger, one row for every record in input order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from virnucpro.output.ledger import LedgerWriter
from virnucpro.output.schema import STATUSES
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
        "ordinal": np.arange(block.first_ordinal, block.first_ordinal + block.records),
        "id": headers["id"],
        "description": headers["description"],
        "file": _dictionary(np.full(block.records, block.file_index), spool.files),
        "length": pa.array(lengths, mask=rejected),
        "truncated": pa.array(lengths > limit, mask=rejected),
        "unknown_residues": headers["unknown_residues"],
        "status": _dictionary(status, STATUSES),
        "reason": headers["reason"],
        "sequence_key": _hex_keys(spool.read("keys", *span), rejected),
        "unique_index": pa.array(unique, mask=unplaced),
        "shard": pa.array((np.searchsorted(starts, unique, side="right") - 1).astype(np.int32), mask=unplaced),
    }
    if spool.has("reuse_row"):
        for column in ("reuse_source", "reuse_row"):
            rows[column] = pa.array(spool.read(column, *span), mask=status != REUSED)
    return rows


def _dictionary(indices: Array, values: tuple[str, ...]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int32)), pa.array(values, pa.string()))


def _hex_keys(keys: Array, rejected: Array) -> pa.StringArray:
    digits = pa.py_buffer(keys.tobytes().hex().encode("ascii"))
    offsets = pa.py_buffer(np.arange(0, (len(keys) + 1) * _KEY_DIGITS, _KEY_DIGITS, dtype=np.int32))
    column = pa.StringArray.from_buffers(len(keys), offsets, digits)
    return pc.if_else(pa.array(rejected), None, column) if rejected.any() else column
