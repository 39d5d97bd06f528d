"""Per-residue vectors of all shards, in parts, with the sequence key that joins them to the records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.errors import DataError, LedgerError
from virnucpro.output.layout import EMBEDDED, statuses
from virnucpro.output.ledger import LedgerReader
from virnucpro.output.parts import PartWriter
from virnucpro.output.schema import RESIDUES_FILE, merged_residues_schema
from virnucpro.output.shard_set import ShardFiles
from virnucpro.output.writer import VECTOR_STORAGE


def merge_residues(
    shards: Sequence[ShardFiles], ledger: LedgerReader, folder: Path, metadata: dict[str, object], part_bytes: int
) -> list[Path]:
    """Copy the shards' residues into ``folder``, one row per distinct sequence; returns the files.

    Raises:
        LedgerError: a sequence's residues are missing or there twice.
        DataError: a file cannot be read.
    """
    first = pq.read_schema(shards[0].folder / RESIDUES_FILE)
    schema = merged_residues_schema(first, metadata)
    writer = PartWriter(folder, schema, None, VECTOR_STORAGE)
    keys = _KeyStream(ledger)
    written = 0
    for shard in shards:
        shard_keys = keys.take(shard.sequences)
        seen = np.zeros(shard.sequences, np.bool_)
        for table in _row_groups(shard):
            rows = table["unique_index"].to_numpy() - shard.first_unique_index
            inside = (rows >= 0) & (rows < shard.sequences)
            if not inside.all() or seen[rows].any() or len(np.unique(rows)) != len(rows):
                raise LedgerError(
                    f"shard {shard.number} ({shard.folder}): residues of a sequence twice; embed it again"
                )
            seen[rows] = True
            table = table.drop_columns("unique_index").add_column(0, "sequence_key", shard_keys.take(pa.array(rows)))
            if written + table.nbytes > part_bytes and written:
                writer.start_part()
                written = 0
            writer.write(table.cast(schema))
            written += table.nbytes
        if not seen.all():
            missing = int(np.flatnonzero(~seen)[0]) + shard.first_unique_index
            raise LedgerError(f"shard {shard.number} ({shard.folder}): no residues of unique_index {missing}")
    writer.close()
    return writer.paths


def _row_groups(shard: ShardFiles) -> Iterator[pa.Table]:
    path = shard.folder / RESIDUES_FILE
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, use_threads=False)
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise DataError(f"shard {shard.number}: {path}: unreadable ({error}); embed it again") from error


class _KeyStream:
    """The keys of embedded records in order of their unique_index, taken a shard at a time."""

    def __init__(self, ledger: LedgerReader) -> None:
        self._batches = ledger.batches(["status", "sequence_key"])
        self._rest = pa.array([], pa.string())

    def take(self, count: int) -> pa.Array:
        pieces, have = [self._rest], len(self._rest)
        while have < count:
            batch = next(self._batches)
            pieces.append(batch["sequence_key"].filter(pa.array(statuses(batch) == EMBEDDED)))
            have += len(pieces[-1])
        keys = pa.concat_arrays(pieces)
        self._rest = keys[count:]
        return keys[:count]
