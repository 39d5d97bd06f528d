"""Per-residue vectors of shards and of earlier results: files linked where all of one is wanted, else rows copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.errors import DataError, LedgerError
from virnucpro.merge.layout import statuses
from virnucpro.merge.shard_set import ShardFiles, check_alike
from virnucpro.output.atomic import link_or_copy
from virnucpro.output.damage import reading
from virnucpro.output.digest_list import reused_residues
from virnucpro.output.digests import check_file
from virnucpro.output.files import part_name
from virnucpro.output.keys import KeyDigest
from virnucpro.output.ledger import LedgerReader
from virnucpro.output.residue_reader import read_residues, residue_dims
from virnucpro.output.residues import ResidueWriter
from virnucpro.output.schema import EMBEDDED, IDENTITY_KEYS, REUSED, decode_metadata, residues_schema

_EMBED_AGAIN: Final = "embed it again"
_LEAVE_OUT: Final = "leave it out of --reuse and split again"


def merge_residues(
    shards: Sequence[ShardFiles],
    reuse: Sequence[Path],
    ledger: LedgerReader,
    folder: Path,
    metadata: Mapping[str, object],
    part_bytes: int,
) -> dict[Path, str]:
    """Put into ``folder`` what the shards and the earlier results hold, if they hold residues.

    A file of which all rows are wanted is linked, or copied where it cannot be. Of others the wanted rows are written
    anew, and so are those of earlier results that hold residues in another form.

    Returns:
        The files with their digests.

    Raises:
        LedgerError: a sequence's residues are missing or there twice.
        DataError: a file cannot be read, or has other columns.
    """
    if shards and not shards[0].residues:
        return {}
    wanted = _reused_keys(ledger)
    # Earlier results that were refused may hold other columns.
    earlier = (path for source in sorted(wanted) for path in reused_residues(reuse[source]))
    like = next(iter(shards[0].residues), None) if shards else next(earlier, None)
    if like is None:
        return {}
    with reading(like, _EMBED_AGAIN if shards else _LEAVE_OUT):
        columns = residue_dims(pq.read_schema(like), like)
    residues = _Residues(folder, columns, metadata, part_bytes)
    try:
        residues.take_shards(shards, ledger)
        residues.take_reused(reuse, wanted)
        return residues.close()
    except BaseException:
        residues.abort()
        raise


class _Residues:
    """Gathers per-residue vectors, from shards and from earlier results, one row per distinct sequence.

    Args:
        folder: where the parts go.
        columns: names to dimensions.
        metadata: of the run, and of every part that is written anew.
        part_bytes: about what such a part holds.
    """

    def __init__(
        self, folder: Path, columns: Mapping[str, int], metadata: Mapping[str, object], part_bytes: int
    ) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._columns = dict(columns)
        self._metadata = metadata
        self._schema = residues_schema(columns, metadata)
        self._part_bytes = part_bytes
        self._linked: dict[Path, str] = {}
        self._rest: list[tuple[Path, set[bytes]]] = []
        self._writer: ResidueWriter | None = None

    def close(self) -> dict[Path, str]:
        """Write what could not be linked; returns all parts with their digests."""
        if not self._rest:
            return self._linked
        self._writer = ResidueWriter(self._folder, self._columns, self._metadata, len(self._linked), self._part_bytes)
        for path, wanted in self._rest:
            with reading(path, _LEAVE_OUT):
                for key, matrices in read_residues(path, list(self._columns)):
                    # A run without deduplication has a row for each of equal sequences.
                    if (packed := bytes.fromhex(key)) in wanted:
                        wanted.remove(packed)
                        self._writer.write([key], [matrices])
        self._writer.close()
        return self._linked | self._writer.digests

    def abort(self) -> None:
        """Let go of the open part."""
        if self._writer is not None:
            self._writer.abort()

    def take_shards(self, shards: Sequence[ShardFiles], ledger: LedgerReader) -> None:
        """Link what the shards computed."""
        ledger_keys = _KeyStream(ledger)
        for shard in shards:
            where = f"shard {shard.number} ({shard.folder})"
            expected, found = KeyDigest(), KeyDigest()
            expected.add(ledger_keys.take(shard.sequences))
            for path, digest in shard.residues.items():
                check_file(path, digest, _EMBED_AGAIN)
                with reading(f"{where}: {path}", _EMBED_AGAIN):
                    schema = pq.read_schema(path)
                    if not schema.equals(self._schema) or residue_dims(schema, where) != self._columns:
                        raise DataError(f"{where}: other columns in {path.name}; {_EMBED_AGAIN}")
                    check_alike(shard.metadata, decode_metadata(schema, where), where, "its other vectors")
                    found.add(_keys(path))
                self._link(path, digest, _EMBED_AGAIN)
            if found != expected:
                raise LedgerError(
                    f"{where}: residues of {found.count} sequences for {expected.count}, or of others; {_EMBED_AGAIN}"
                )

    def take_reused(self, results: Sequence[Path], reused: Mapping[int, set[bytes]]) -> None:
        """Link what earlier results hold of the sequences that are reused, or note it to be copied.

        Memory holds the keys of these, about 100 bytes each: their vectors take a thousand times as much on disk.
        """
        for source, wanted in sorted(reused.items()):
            for path, digest in reused_residues(results[source]).items():
                check_file(path, digest, _LEAVE_OUT)
                with reading(path, _LEAVE_OUT):
                    schema = pq.read_schema(path)
                    if residue_dims(schema, path) != self._columns:
                        raise DataError(f"{path}: other columns than this run; leave it out of --reuse")
                    keys = [bytes.fromhex(key) for key in _keys(path).to_pylist()]
                taken = wanted.intersection(keys)
                wanted -= taken
                if taken and len(taken) == len(keys) and self._is_alike(schema, path):
                    self._link(path, digest, _LEAVE_OUT)
                elif taken:
                    self._rest.append((path, taken))
            if wanted:
                raise LedgerError(
                    f"{results[source]}: no residues of {len(wanted)} sequences that are reused, the first with key "
                    f"{min(wanted).hex()}; {_LEAVE_OUT}"
                )

    def _is_alike(self, schema: pa.Schema, path: Path) -> bool:
        """Whether a file of earlier results could be one of this run: neither its form nor its origin differs."""
        found = decode_metadata(schema, path)
        return schema.equals(self._schema) and all(found.get(key) == self._metadata.get(key) for key in IDENTITY_KEYS)

    def _link(self, path: Path, digest: str, remedy: str) -> None:
        part = self._folder / part_name(len(self._linked))
        if not link_or_copy(path, part):
            check_file(part, digest, remedy)
        self._linked[part] = digest


def _reused_keys(ledger: LedgerReader) -> dict[int, set[bytes]]:
    """Keys of the reused sequences, by the position of their results in ``--reuse``."""
    wanted: dict[int, set[bytes]] = {}
    for batch in ledger.batches(["status", "sequence_key", "reuse_source"]):
        reused = batch.filter(pa.array(statuses(batch) == REUSED))
        for source, key in zip(reused["reuse_source"].to_pylist(), reused["sequence_key"].to_pylist(), strict=True):
            wanted.setdefault(source, set()).add(bytes.fromhex(key))
    return wanted


def _keys(path: Path) -> pa.ChunkedArray:
    return pq.read_table(path, columns=["sequence_key"], partitioning=None, pre_buffer=False)["sequence_key"]


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
