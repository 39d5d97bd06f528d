"""The sequences of a run, which its results do not hold: read from its input once more, and proved to be the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import xxhash

from virnucpro.errors import DataError, InputMissingError
from virnucpro.export.results import Records, Results
from virnucpro.fasta import Record, Rejected, scan_records

_REMEDY = "name the run's input with --sequences, in the same order"


class Sequences:
    """The sequences of the rows in their order, as the model saw them.

    Args:
        results: whose rows.
        files: the run's input; where none is named, the files that the ledger names.

    Raises:
        InputMissingError: a file is not there.
    """

    def __init__(self, results: Results, files: Sequence[Path]) -> None:
        self._results = results
        named: list[tuple[Path, int | None]] = [(path, None) for path in files]
        given = named or _files(results)
        for path, _ in given:
            if not path.is_file():
                raise InputMissingError(f"{path}: no such file; {_REMEDY}")
        metadata = results.metadata
        self._limit = metadata["max_length"] if metadata["long_sequences"] == "truncate" else None
        self._stream = self._kept(given)

    def take(self, records: Records) -> list[str]:
        """The sequences of the rows that come next.

        Raises:
            DataError: the files hold others.
        """
        found = []
        for name, key in zip(records.facts["id"].to_pylist(), records.facts["sequence_key"].to_pylist(), strict=True):
            sequences = next(self._stream, [])
            sequence = next((each for each in sequences if xxhash.xxh3_128_hexdigest(each.encode()) == key), None)
            if sequence is None:
                raise DataError(f"record '{name}': its sequence is not that of the run; {_REMEDY}")
            found.append(sequence)
        return found

    def _kept(self, files: Sequence[tuple[Path, int | None]]) -> Iterator[list[str]]:
        """What each record that was not rejected may have been read as: without its gaps, and with X in their place."""
        statuses = (status for batch in self._results.files() for status in batch["status"].cast("string").to_pylist())
        for path, records in files:
            for removed, unknown in _records(path, records):
                if next(statuses, None) != "rejected":
                    read = [each.sequence for each in (removed, unknown) if isinstance(each, Record)]
                    yield [sequence[: self._limit] for sequence in read]


def _records(path: Path, count: int | None) -> Iterator[tuple[Record | Rejected, Record | Rejected]]:
    """So many records of a file, again from its beginning where it has fewer, or as many as it has; each read twice."""
    left = count
    while left is None or left > 0:
        found = 0
        both = zip(scan_records(path), scan_records(path, gaps="unknown"), strict=True)
        for pair in islice(both, left):
            found += 1
            yield pair
        if left is None or not found:
            return
        left -= found


def _files(results: Results) -> list[tuple[Path, int | None]]:
    """The files of the run in their order, each with its records: one that was given twice in a row is one of twice as
    many."""
    found: list[tuple[str, int]] = []
    for batch in results.files():
        for file in batch["file"].cast("string").to_pylist():
            if found and found[-1][0] == file:
                found[-1] = (file, found[-1][1] + 1)
            else:
                found.append((file, 1))
    return [(Path(file), records) for file, records in found]
