"""The proof of finished results from their own files: that all is there, as it was written, and fits together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.config import residue_limit
from virnucpro.errors import DataError, LedgerError
from virnucpro.merge.layout import statuses
from virnucpro.output.contracts import RunSummary
from virnucpro.output.damage import REMEDY_OF_RESULTS as _REMEDY
from virnucpro.output.damage import reading
from virnucpro.output.digest_list import listed_parts, read_digests
from virnucpro.output.digests import check_file
from virnucpro.output.files import (
    EMBEDDINGS_DIR,
    MANIFEST_FILE,
    METRICS_DIR,
    PROVENANCE_FILE,
    REJECTED_FILE,
    RESIDUES_DIR,
    RUN_SUMMARY_FILE,
    SHARDS_FILE,
)
from virnucpro.output.keys import KeyDigest
from virnucpro.output.ledger import LedgerReader
from virnucpro.output.schema import (
    EMBEDDED,
    IDENTITY_KEYS,
    LEDGER_SCHEMA,
    REJECTED,
    REUSED,
    STATUSES,
    read_metadata,
)

_ROWS_AT_ONCE: Final = 65_536


@dataclass(frozen=True)
class Proof:
    """What was proved of results: that so many files and rows are whole."""

    files: int
    rows: int
    summary: RunSummary

    def in_words(self, results: Path) -> str:
        """One line for the user."""
        run = self.summary
        return (
            f"{results}: whole: {self.files} files, {run.records} records, {self.rows} vectors of {run.model.name} "
            f"(weights sha256 {run.model.weights_sha256[:12]}), {run.rejected} rejected"
        )


def verify(results: Path) -> Proof:
    """Prove results that a run left.

    Every file of the list must be there with its digest, and no other that a run writes beside them; the ledger, the
    vectors, the residues, the rejected records and the summary must account for each other, row by row.

    Raises:
        InputMissingError: there are no results, or they name no digests.
        DataError: a file is missing, surplus or another than was written.
        LedgerError: the files do not fit together.
        OSError: a file cannot be read.
    """
    digests = read_digests(results)
    _check_files(results, digests)
    summary = RunSummary.read(results / METRICS_DIR / RUN_SUMMARY_FILE)
    parts, residues = (listed_parts(results, digests, folder) for folder in (EMBEDDINGS_DIR, RESIDUES_DIR))
    for path in (*parts, *residues):
        _check_origin(path, summary)
    with LedgerReader(results / MANIFEST_FILE, earlier=True) as ledger:
        rows = _check_rows(ledger, parts)
        computed = _check_ledger(ledger, summary, rows, results, residues=bool(residues))
        _check_rejected(results / REJECTED_FILE, ledger)
    if residues:
        _check_residues(residues, computed, summary)
    return Proof(len(digests), rows, summary)


def _check_files(results: Path, digests: Mapping[str, str]) -> None:
    required = {MANIFEST_FILE, REJECTED_FILE, f"{METRICS_DIR}/{RUN_SUMMARY_FILE}", f"{METRICS_DIR}/{SHARDS_FILE}"}
    for name in sorted(required - digests.keys()):
        raise DataError(f"{results / name}: not among the digests; {_REMEDY}")
    folders = (EMBEDDINGS_DIR, METRICS_DIR, RESIDUES_DIR)
    beside = chain(*((results / folder).glob("**/*") for folder in folders), (results / PROVENANCE_FILE,))
    there = {path.relative_to(results).as_posix() for path in beside if path.is_file()}
    for name in sorted(there - digests.keys()):
        raise DataError(f"{results / name}: not of this run, whose digests do not name it; remove it, or {_REMEDY}")
    for name, digest in digests.items():
        check_file(results / name, digest, _REMEDY)


def _check_origin(path: Path, summary: RunSummary) -> None:
    with reading(path, _REMEDY):
        found = read_metadata(path)
    told = {**summary.model.to_dict(), **summary.parameters.to_dict()}
    for key in IDENTITY_KEYS:
        if found.get(key) != told[key]:
            raise DataError(f"{path}: {key} is {found.get(key)}, but {told[key]} in {RUN_SUMMARY_FILE}; {_REMEDY}")


def _check_rows(ledger: LedgerReader, parts: Sequence[Path]) -> int:
    """Compare the rows of the parts with the records that were not rejected, in order; returns how many there are."""
    rows = 0
    held = [LEDGER_SCHEMA.field(name).with_nullable(False) for name in ledger.facts]
    facts = pa.schema([*held, *map(_plain, ledger.optional)])
    batches = ledger.batches((*facts.names, "status"))
    kept = _Rows((batch.filter(pa.array(statuses(batch) != REJECTED)) for batch in batches), facts)
    for path in parts:
        for found in _batches(path, facts.names):
            expected = kept.take(found.num_rows)
            if not pa.Table.from_batches([found]).cast(facts).equals(expected):
                raise LedgerError(f"{path}: rows from {rows} on are not the records of the ledger; {_REMEDY}")
            rows += found.num_rows
    if kept.take(1).num_rows:
        raise LedgerError(f"{ledger.path}: has more records than the {rows} rows of the results; {_REMEDY}")
    return rows


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


class _Rows:
    """The facts of records in order, taken as many at a time as are asked for."""

    def __init__(self, batches: Iterator[pa.RecordBatch], facts: pa.Schema) -> None:
        self._batches = batches
        self._facts = facts
        self._rest: list[pa.RecordBatch] = []

    def take(self, count: int) -> pa.Table:
        have = sum(batch.num_rows for batch in self._rest)
        while have < count and (batch := next(self._batches, None)) is not None:
            self._rest += pa.Table.from_batches([batch.select(self._facts.names)]).cast(self._facts).to_batches()
            have += batch.num_rows
        table = pa.Table.from_batches(self._rest, self._facts)
        self._rest = table.slice(count).to_batches()
        return table.slice(0, count)


def _check_ledger(ledger: LedgerReader, summary: RunSummary, rows: int, results: Path, *, residues: bool) -> KeyDigest:
    """Count the ledger anew; returns the keys that have residues, of which memory holds those of earlier results."""
    counts = np.zeros(len(STATUSES), np.int64)
    keys, computed = KeyDigest(), KeyDigest()
    reused: set[tuple[int, str]] = set()
    records = 0
    for batch in ledger.batches(["ordinal", "status", "sequence_key", "reuse_source"]):
        codes = statuses(batch)
        ordinals = batch["ordinal"].to_numpy()
        if (codes < 0).any() or (ordinals != records + np.arange(len(codes))).any():
            raise LedgerError(f"{ledger.path}: a record from {records} on has no status or is out of order; {_REMEDY}")
        records += len(codes)
        counts += np.bincount(codes, minlength=len(STATUSES))
        keys.add(batch["sequence_key"].filter(pa.array(codes != REJECTED)))
        if residues:
            computed.add(batch["sequence_key"].filter(pa.array(codes == EMBEDDED)))
            taken = batch.filter(pa.array(codes == REUSED))
            new = set(zip(taken["reuse_source"].to_pylist(), taken["sequence_key"].to_pylist(), strict=True)) - reused
            reused |= new
            computed.add(pa.array([key for _, key in new], pa.string()))
    found: dict[str, Any] = dict(zip(STATUSES, counts.tolist(), strict=True))
    found |= {"records": records, "rows": rows, "keys_digest": keys.hexdigest()}
    for name, value in found.items():
        if getattr(summary, name) != value:
            told = getattr(summary, name)
            raise LedgerError(f"{results}: {name} is {value}, but {told} in {RUN_SUMMARY_FILE}; {_REMEDY}")
    return computed


def _check_rejected(path: Path, ledger: LedgerReader) -> None:
    """Each rejected record of the ledger has its line, and no other has one."""
    expected = chain.from_iterable(
        batch["ordinal"].filter(pa.array(statuses(batch) == REJECTED)).to_pylist()
        for batch in ledger.batches(["ordinal", "status"])
    )
    with path.open(encoding="utf-8", newline="\n") as lines:
        cells = (line.split("\t") for line in islice(lines, 1, None))
        found = (int(row[2]) if len(row) == 5 and row[2].isdecimal() else -1 for row in cells)
        if any(one != other for one, other in zip_longest(found, expected)):
            raise LedgerError(f"{path}: names other records than the ledger rejects; {_REMEDY}")


def _check_residues(paths: Sequence[Path], expected: KeyDigest, summary: RunSummary) -> None:
    """Every sequence that was computed or reused has its residues once, as many as the model saw at most."""
    limit = residue_limit(summary.parameters.max_length, summary.parameters.long_sequences)
    found = KeyDigest()
    for path in paths:
        for batch in _batches(path, ("sequence_key", "length")):
            found.add(batch["sequence_key"])
            lengths: npt.NDArray[np.int32] = batch["length"].to_numpy()
            if (lengths < 1).any() or (limit is not None and (lengths > limit).any()):
                raise LedgerError(f"{path}: a sequence has residues that the model cannot have seen; {_REMEDY}")
    if found != expected:
        raise LedgerError(
            f"{paths[0].parent}: residues of {found.count} sequences, but the ledger has {expected.count}, or others; "
            f"{_REMEDY}"
        )


def _batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with reading(path, _REMEDY), pq.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(columns))
