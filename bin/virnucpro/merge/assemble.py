"""The second pass over the ledger: every record gets its vector, window by window, in input order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.errors import LedgerError
from virnucpro.merge.buckets import SpillBuckets
from virnucpro.merge.layout import (
    Layout,
    model_tokens,
    numbers,
    reuse_id,
    statuses,
    wanted_ids,
    wanting_windows,
)
from virnucpro.merge.vectors import Rows, ShardReader, facts_of_a_row, record_type
from virnucpro.output.keys import key_words
from virnucpro.output.ledger import LedgerReader
from virnucpro.output.schema import BATCH_FACTS, EMBEDDED, LEDGER_FACTS, REJECTED, REUSED
from virnucpro.output.writer import vector_array

Array = npt.NDArray[Any]

_COLUMNS = tuple(dict.fromkeys((*LEDGER_FACTS, "length", "status", "unique_index", "reuse_source", "reuse_row")))


@dataclass(frozen=True)
class Assembler:
    """Builds the output's row groups.

    Args:
        layout: the scanned ledger.
        reader: vectors of the shards.
        wanted: vectors that later windows want; those of earlier results are in it already.
        schema: of the output.
        columns: embedding columns and dimensions.
        dtype: "float32" or "float16".
        group_rows: rows per row group; a window is a whole number of them.
        device_names: by shard number.
    """

    layout: Layout
    reader: ShardReader
    wanted: SpillBuckets
    schema: pa.Schema
    columns: Mapping[str, int]
    dtype: str
    group_rows: int
    device_names: Sequence[str | None]

    def row_groups(self, ledger: LedgerReader) -> Iterator[pa.Table]:
        """The output in input order, one table per row group.

        Raises:
            LedgerError: a record's vector is missing, or is of another sequence.
        """
        windows = self.layout.window_sizes()
        records = kept_records(ledger, self.layout.window_rows)
        for window, (rows, first_unique, count) in enumerate(windows):
            table = next(records)
            assert table.num_rows == rows
            yield from self._window(window, table, first_unique, count)

    def _window(self, window: int, table: pa.RecordBatch, first_unique: int, count: int) -> Iterator[pa.Table]:
        codes = statuses(table)
        keys = key_words(table["sequence_key"])
        new = self.reader.take(count)
        self._send(window, new, first_unique)
        other = self.wanted.take(window)
        ids = self._ids(table, codes)
        slots = ids - first_unique
        is_new = slots >= 0
        slots[~is_new] = self._find(other, ids[~is_new], table, is_new)
        self._check_keys(table, keys, new["key"], other, slots, is_new)
        energy = np.zeros(len(codes), np.float64)
        embedded = codes == EMBEDDED
        lengths = numbers(table, "length")
        tokens = model_tokens(lengths[embedded], self.layout.residue_limit)
        energy[embedded] = new["energy_per_token"][slots[embedded]] * tokens
        for start in range(0, len(codes), self.group_rows):
            rows = slice(start, min(start + self.group_rows, len(codes)))
            yield self._table(
                table.slice(start, rows.stop - start), new, other, slots[rows], is_new[rows], energy[rows]
            )

    def _send(self, window: int, new: Rows, first_unique: int) -> None:
        """Put aside the vectors of this window that later ones want."""
        asked = np.unique(self.layout.requests.take(window))
        if not len(asked):
            return
        windows = wanting_windows(asked)
        order = np.argsort(windows, kind="stable")
        names, first = np.unique(windows[order], return_index=True)
        kind = record_type(self.columns, self.dtype)
        facts = [name for name, *_ in facts_of_a_row(self.columns, self.dtype)]
        # One window's records at a time: they are few enough to stay in the processor's cache.
        for target, chosen in zip(names.tolist(), np.split(order, first[1:]), strict=True):
            ids = wanted_ids(asked[chosen])
            rows = ids - first_unique
            records = np.empty(len(rows), kind)
            records["id"] = ids
            records["key"] = new["key"][rows]
            for name in facts:
                records[name] = new[name][rows]
            self.wanted.add(target, records)

    def _ids(self, table: pa.RecordBatch, codes: Array) -> Array:
        ids = numbers(table, "unique_index")
        reused = codes == REUSED
        if reused.any():
            source, row = numbers(table, "reuse_source")[reused], numbers(table, "reuse_row")[reused]
            ids = ids.copy()
            ids[reused] = reuse_id(self.layout.reuse_first_rows, source, row)
        return ids

    def _find(self, other: Array, ids: Array, table: pa.RecordBatch, is_new: Array) -> Array:
        known = np.ascontiguousarray(other["id"])
        order = np.argsort(known)
        places = np.searchsorted(known, ids, sorter=order)
        found = places < len(known)
        places[found] = order[places[found]]
        found[found] = known[places[found]] == ids[found]
        if not found.all():
            row = np.flatnonzero(~is_new)[np.flatnonzero(~found)[0]]
            raise LedgerError(f"no vector for the record with ordinal {table['ordinal'][row].as_py()}; merge again")
        return places

    def _check_keys(
        self, table: pa.RecordBatch, keys: Array, new_keys: Array, other: Array, slots: Array, is_new: Array
    ) -> None:
        right = np.empty(len(keys), np.bool_)
        right[is_new] = (new_keys[slots[is_new]] == keys[is_new]).all(axis=1)
        right[~is_new] = (other["key"][slots[~is_new]] == keys[~is_new]).all(axis=1)
        if not right.all():
            row = table.slice(int(np.flatnonzero(~right)[0]), 1)
            raise LedgerError(
                f"the record with ordinal {row['ordinal'][0].as_py()} ({row['id'][0].as_py()}) would get the vector of "
                "another sequence; its shard was embedded from another split: embed it again"
            )

    def _table(
        self, records: pa.RecordBatch, new: Rows, other: Array, slots: Array, is_new: Array, energy: Array
    ) -> pa.Table:
        all_new = bool(is_new.all())
        # As they stand in their shard, where no row is a duplicate or was left out: nothing is copied then.
        in_order = all_new and bool((np.diff(slots) == 1).all())

        def gathered(name: str) -> Array:
            if in_order:
                return new[name][slots[0] : slots[-1] + 1]
            if all_new:
                return new[name][slots]
            values = np.empty((len(slots), *new[name].shape[1:]), new[name].dtype)
            values[is_new] = new[name][slots[is_new]]
            values[~is_new] = other[name][slots[~is_new]]
            return values

        shard = gathered("shard")
        unknown = shard < 0
        made: dict[str, pa.Array] = {
            name: vector_array(gathered(name), self.schema.field(name).type) for name in self.columns
        }
        made |= {name: pa.array(gathered(name), from_pandas=True) for name in BATCH_FACTS}
        made["shard"] = pa.array(shard, mask=unknown)
        made["batch"] = pa.array(gathered("batch"), mask=unknown)
        made["device_name"] = pa.DictionaryArray.from_arrays(
            pa.array(shard, mask=unknown), pa.array(self.device_names, pa.string())
        )
        made["energy_joules"] = pa.array(energy, from_pandas=True)
        arrays = [made[name] if name in made else records[name] for name in self.schema.names]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def kept_records(ledger: LedgerReader, rows: int) -> Iterator[pa.RecordBatch]:
    """The records that have a vector, ``rows`` at a time."""
    pending: list[pa.RecordBatch] = []
    count = 0
    for batch in ledger.batches((*_COLUMNS, *(each.name for each in ledger.optional))):
        kept = batch.filter(pa.array(statuses(batch) != REJECTED))
        while kept.num_rows:
            piece = kept.slice(0, rows - count)
            kept = kept.slice(piece.num_rows)
            pending.append(piece)
            count += piece.num_rows
            if count == rows:
                yield _joined(pending)
                pending, count = [], 0
    if count:
        yield _joined(pending)


def _joined(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(pieces).unify_dictionaries().combine_chunks().to_batches()[0]
