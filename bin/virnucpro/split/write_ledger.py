"""Last pass of a split: the ledger, one row for every record in input order."""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.output.ledger import LEDGER_ROW_GROUP_BYTES, LEDGER_ROW_GROUP_ROWS, LedgerWriter
from virnucpro.output.schema import CONTIG_FIELDS, REJECTED, REUSED, SAMPLE, STATUSES
from virnucpro.split.columns import numbers, repeated, strings
from virnucpro.split.spool import KEY_TYPE, Spool, SpooledBlock, above

_KEY_DIGITS: Final = 2 * KEY_TYPE.itemsize

Array = npt.NDArray[Any]


def write_ledger(spool: Spool, starts: npt.NDArray[np.int64], path: Path) -> int:
    """Write the ledger from the spool; return its rows (a task of ``Workers``).

    Args:
        starts: first unique index of each shard.
    """
    samples = sorted(set(spool.samples))
    places = {name: place for place, name in enumerate(samples)}
    sample_of_file = np.array([places[name] for name in spool.samples])
    optional = [*([SAMPLE] if samples else []), *(CONTIG_FIELDS if spool.translated else [])]
    with LedgerWriter(path, optional=optional) as ledger:
        for blocks in _groups(spool.blocks):
            rows = _rows(spool, blocks, starts)
            if samples:
                rows[SAMPLE.name] = _names(blocks, sample_of_file[[block.file_index for block in blocks]], samples)
            ledger.write(rows)
    return ledger.rows


def _groups(blocks: Sequence[SpooledBlock]) -> Iterator[list[SpooledBlock]]:
    """Blocks that follow each other, about a row group of records at once."""
    group: list[SpooledBlock] = []
    header_bytes = 0
    for block in blocks:
        group.append(block)
        header_bytes += block.headers.size
        records = block.first_ordinal + block.records - group[0].first_ordinal
        if records >= LEDGER_ROW_GROUP_ROWS or header_bytes >= LEDGER_ROW_GROUP_BYTES:
            yield group
            group, header_bytes = [], 0
    if group:
        yield group


def _rows(spool: Spool, blocks: list[SpooledBlock], starts: npt.NDArray[np.int64]) -> dict[str, Any]:
    records = np.array([block.records for block in blocks])
    span = blocks[0].first_ordinal, int(records.sum())
    status = spool.read("status", *span)
    lengths = spool.read("lengths", *span)
    unique = spool.read("unique", *span)
    rejected = status == REJECTED
    unplaced = rejected | (status == REUSED)
    headers = pa.concat_tables([pa.ipc.open_stream(spool.load(block.headers)).read_all() for block in blocks])
    rows = {
        "ordinal": numbers(np.arange(span[0], sum(span))),
        "id": headers["id"],
        "description": headers["description"],
        "file": _names(blocks, np.array([block.file_index for block in blocks]), spool.files),
        "length": numbers(lengths, rejected),
        "truncated": numbers(above(lengths, spool.residue_limit), rejected),
        "beyond_trained_length": numbers(above(lengths, spool.trained_limit), rejected),
        "unknown_residues": headers["unknown_residues"],
        "gaps_removed": headers["gaps_removed"],
        "status": repeated(status, STATUSES),
        "reason": headers["reason"],
        "sequence_key": _hex_keys(spool.read("keys", *span), rejected),
        "unique_index": numbers(unique, unplaced),
        "shard": numbers((np.searchsorted(starts, unique, side="right") - 1).astype(np.int32), unplaced),
    }
    if spool.translated:
        rows |= {each.name: headers[each.name] for each in CONTIG_FIELDS}
    if spool.has("reuse_row"):
        for column in ("reuse_source", "reuse_row"):
            rows[column] = numbers(spool.read(column, *span), status != REUSED)
    return rows


def _names(blocks: list[SpooledBlock], of_blocks: Array, names: Sequence[str]) -> pa.DictionaryArray:
    """A column of the names that the records of each block share; of all names it holds those alone that it needs."""
    needed, places = np.unique(of_blocks, return_inverse=True)
    return repeated(np.repeat(places, [block.records for block in blocks]), [names[each] for each in needed])


def _hex_keys(keys: Array, rejected: Array) -> pa.StringArray:
    offsets = np.arange(0, (len(keys) + 1) * _KEY_DIGITS, _KEY_DIGITS, dtype=np.int32)
    return strings(hexlify(keys.tobytes()), offsets, rejected)
