"""Per-residue vectors of shards and of earlier results, in parts, with the key that joins them to the records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.errors import DataError, LedgerError
from virnucpro.merge.layout import statuses
from virnucpro.merge.parts import PartWriter
from virnucpro.merge.shard_set import ShardFiles
from virnucpro.output.damage import reading
from virnucpro.output.digest_list import reused_residues
from virnucpro.output.digests import ContentDigest, check_file
from virnucpro.output.files import RESIDUES_FILE
from virnucpro.output.ledger import LedgerReader
from virnucpro.output.schema import EMBEDDED, REUSED, merged_residues_schema
from virnucpro.output.writer import VECTOR_STORAGE


def merge_residues(
    shards: Sequence[ShardFiles],
    reuse: Sequence[Path],
    ledger: LedgerReader,
    folder: Path,
    metadata: Mapping[str, object],
    part_bytes: int,
) -> dict[Path, str]:
    """Write into ``folder`` what the shards and the earlier results hold, if they hold residues.

    Returns:
        The files with their digests.

    Raises:
        LedgerError: a sequence's residues are missing or there twice.
        DataError: a file cannot be read, or has other columns.
    """
    if shards and shards[0].residues is None:
        return {}
    wanted = _reused_keys(ledger)
    # Earlier results that were refused may hold other columns.
    earlier = (path for source in sorted(wanted) for path in reused_residues(reuse[source]))
    like = shards[0].residues if shards else next(earlier, None)
    if like is None:
        return {}
    residues = _Residues(folder, like, metadata, part_bytes)
    try:
        residues.take_shards(shards, ledger)
        residues.take_reused(reuse, wanted)
        return residues.close()
    except BaseException:
        residues.abort()
        raise


class _Residues:
    """Writes per-residue vectors, from shards and from earlier results, one row per distinct sequence.

    Args:
        folder: where the parts go.
        like: a file whose columns they have.
        metadata: of every part.
        part_bytes: about what a part holds.
    """

    def __init__(self, folder: Path, like: Path, metadata: Mapping[str, object], part_bytes: int) -> None:
        with reading(like, "embed it again, or leave it out of --reuse"):
            self._schema = merged_residues_schema(pq.read_schema(like), metadata)
        self._writer = PartWriter(folder, self._schema, None, VECTOR_STORAGE)
        self._part_bytes = part_bytes
        self._written = 0

    def close(self) -> dict[Path, str]:
        """Finish the last part; returns the parts with their digests."""
        self._writer.close()
        return self._writer.digests

    def abort(self) -> None:
        """Let go of the open part."""
        self._writer.abort()

    def take_shards(self, shards: Sequence[ShardFiles], ledger: LedgerReader) -> None:
        """Copy what the shards computed."""
        keys = _KeyStream(ledger)
        for shard in shards:
            shard_keys = keys.take(shard.sequences)
            seen = np.zeros(shard.sequences, np.bool_)
            digest = ContentDigest()
            for table in _row_groups(shard.folder / RESIDUES_FILE, f"shard {shard.number}", "embed it again"):
                expected = {*self._schema.names, "unique_index"}
                if {*table.column_names, "sequence_key"} != expected or not _are_residues(table.schema):
                    where = f"shard {shard.number} ({shard.folder})"
                    raise DataError(f"{where}: other columns in {RESIDUES_FILE}; embed it again")
                rows = table["unique_index"].to_numpy() - shard.first_unique_index
                inside = (rows >= 0) & (rows < shard.sequences)
                if not inside.all() or seen[rows].any() or len(np.unique(rows)) != len(rows):
                    raise LedgerError(
                        f"shard {shard.number} ({shard.folder}): residues of a sequence twice; embed it again"
                    )
                seen[rows] = True
                digest.add(*_stored(table))
                self._write(table.append_column("sequence_key", shard_keys.take(pa.array(rows))))
            if digest.hexdigest() != shard.summary.digests.get(RESIDUES_FILE):
                raise DataError(
                    f"shard {shard.number} ({shard.folder}): {RESIDUES_FILE} does not hold what was written; "
                    "embed it again"
                )
            if not seen.all():
                missing = int(np.flatnonzero(~seen)[0]) + shard.first_unique_index
                raise LedgerError(f"shard {shard.number} ({shard.folder}): no residues of unique_index {missing}")

    def take_reused(self, results: Sequence[Path], reused: Mapping[int, set[bytes]]) -> None:
        """Copy what earlier results hold of the sequences that are reused.

        Memory holds the keys of these, about 100 bytes each: their vectors take a thousand times as much on disk.
        """
        for source, wanted in sorted(reused.items()):
            for path, digest in reused_residues(results[source]).items():
                check_file(path, digest, "leave it out of --reuse and split again")
                for table in _row_groups(path, str(results[source]), "leave it out of --reuse and split again"):
                    if set(table.column_names) != set(self._schema.names):
                        raise DataError(f"{path}: other columns than this run; leave it out of --reuse")
                    keys = [bytes.fromhex(key) for key in table["sequence_key"].to_pylist()]
                    rows = [row for row, key in enumerate(keys) if key in wanted]
                    wanted.difference_update(keys)
                    if rows:
                        self._write(table.take(pa.array(rows)))
            if wanted:
                raise LedgerError(
                    f"{results[source]}: no residues of {len(wanted)} sequences that are reused, the first with key "
                    f"{min(wanted).hex()}; leave it out of --reuse and split again"
                )

    def _write(self, table: pa.Table) -> None:
        if self._written + table.nbytes > self._part_bytes and self._written:
            self._writer.start_part()
            self._written = 0
        self._writer.write(table.select(self._schema.names).cast(self._schema))
        self._written += table.nbytes


def _reused_keys(ledger: LedgerReader) -> dict[int, set[bytes]]:
    """Keys of the reused sequences, by the position of their results in ``--reuse``."""
    wanted: dict[int, set[bytes]] = {}
    for batch in ledger.batches(["status", "sequence_key", "reuse_source"]):
        reused = batch.filter(pa.array(statuses(batch) == REUSED))
        for source, key in zip(reused["reuse_source"].to_pylist(), reused["sequence_key"].to_pylist(), strict=True):
            wanted.setdefault(source, set()).add(bytes.fromhex(key))
    return wanted


def _are_residues(schema: pa.Schema) -> bool:
    """Whether all columns but the first two are lists of vectors of float16."""
    kinds = schema.types[2:]
    lists = [kind.value_type for kind in kinds if pa.types.is_list(kind)]
    vectors = [each.value_type for each in lists if pa.types.is_fixed_size_list(each)]
    return len(kinds) == len([each for each in vectors if pa.types.is_float16(each)])


def _stored(table: pa.Table) -> list[npt.NDArray[Any]]:
    """The columns of a shard's residues as they were written: indices, lengths, and all numbers of each vector."""
    numbers = [table[name].to_numpy() for name in ("unique_index", "length")]
    vectors = [table[name].combine_chunks() for name in table.column_names[len(numbers) :]]
    return [*numbers, *(column.flatten().flatten().to_numpy(zero_copy_only=False) for column in vectors)]


def _row_groups(path: Path, whose: str, remedy: str) -> Iterator[pa.Table]:
    with reading(f"{whose}: {path}", remedy), pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, use_threads=False)


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
