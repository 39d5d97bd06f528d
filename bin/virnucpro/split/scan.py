"""First pass of a split: parse every record once, and spool what the later passes need."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, TextIO

import numpy as np

from virnucpro.config import SplitConfig
from virnucpro.errors import DataError, FastaFormatError
from virnucpro.fasta import rejection
from virnucpro.fasta_text import Fault
from virnucpro.file_identity import identity_of
from virnucpro.plain_text import table_cell
from virnucpro.split.blocks import ScannedBlock, scan_blocks
from virnucpro.split.contigs import Translation
from virnucpro.split.cut import Span, cut_file, cut_stream, reopened
from virnucpro.split.parse import KEY_BYTES
from virnucpro.split.sources import open_source
from virnucpro.split.spool import Spool, SpooledBlock, above
from virnucpro.split.workers import Payload, Workers

#: Bytes of FASTA parsed at once: small enough to stay near the cache, large enough to hide what each block costs.
BLOCK_BYTES: Final = 1 << 21
#: Blocks of a plain file for one task: handing out a task costs a seventh of parsing a block.
BLOCKS_PER_TASK: Final = 8
#: Bytes of contigs translated at once: a quarter of a second's work.
CONTIG_BYTES: Final = 1 << 18
#: Rejected records that the error names where all are.
REASONS_SHOWN: Final = 3
REJECTED_HEADER: Final = "file\tline\tordinal\tid\treason\n"


@dataclass
class ScanTotals:
    """Counts over all records that are not rejected, how many are, comment lines, and frames left out for a stop;
    ``files`` holds those that can be read again, with what each is known by, ``first_rejected`` where the first few
    rejected records stand, and why they are."""

    residues: int = 0
    truncated: int = 0
    beyond_trained_length: int = 0
    unknown_residues: int = 0
    gaps_removed: int = 0
    comment_lines: int = 0
    stopped_frames: int = 0
    rejected: int = 0
    first_rejected: list[str] = field(default_factory=list)
    empty_files: list[str] = field(default_factory=list)
    files: list[tuple[Path, str, tuple[int, ...]]] = field(default_factory=list)

    def check_unchanged(self) -> None:
        """Raise where a file is gone, or not what it was before it was opened: all are read once more for their
        digests, and plain ones for their sequences."""
        for path, name, identity in self.files:
            with reopened(path, name) as stream:
                found = identity_of(os.fstat(stream.fileno()))
            if found != identity:
                raise DataError(f"{name}: changed while it was read; run again once it is complete")


@dataclass
class _Flight:
    file_index: int
    first_line: int
    record_lines: int | None
    payloads: list[Payload | Span]
    result: Future[list[ScannedBlock | Fault]]


def scan(config: SplitConfig, spool: Spool, rejected: TextIO, workers: Workers) -> ScanTotals:
    """Fill the spool with every record of the inputs, and ``rejected`` with those that cannot be embedded.

    Raises:
        InputMissingError, FastaFormatError: an input cannot be read; with ``strict``, a record is rejected.
    """
    totals = ScanTotals()
    rejected.write(REJECTED_HEADER)
    translation = Translation.of(config)
    flights: deque[_Flight] = deque()
    with spool.path("keys").open("wb") as keys, spool.path("lengths").open("wb") as lengths:
        account = _Account(spool, totals, keys, lengths, rejected, config.strict)
        for number, (file_index, first_line, record_lines, blocks) in enumerate(_tasks(config, spool.files, totals)):
            if number == 1:
                workers.fork()
            while flights and (workers.full(len(flights)) or flights[0].result.done()):
                account.collect(flights.popleft(), workers)
            payloads = [block if isinstance(block, Span) else workers.put(block) for block in blocks]
            result = workers.submit(
                scan_blocks, spool.directory, payloads, spool.residue_limit, config.gaps, translation
            )
            flights.append(_Flight(file_index, first_line, record_lines, payloads, result))
        while flights:
            account.collect(flights.popleft(), workers)
    for copied in spool.directory.glob("columns-*"):
        copied.unlink()
    return totals


def _tasks(
    config: SplitConfig, names: Sequence[str], totals: ScanTotals
) -> Iterator[tuple[int, int, int | None, Sequence[bytes | Span]]]:
    """Yield the number of the file, the line on which its first record begins, its ``record_lines``, and blocks of it
    for one task."""
    for file_index, path in enumerate(config.inputs):
        source = open_source(config, path, names[file_index])
        if source.can_be_read_again():
            totals.files.append((path, names[file_index], identity_of(path.stat())))
        plain = source.plain_file()
        size = BLOCK_BYTES if config.translate is None else CONTIG_BYTES
        tasks: Iterator[Sequence[bytes | Span]]
        if plain is None:
            tasks = ([block] for block in cut_stream(source, size))
        else:
            tasks = _together(cut_file(plain, size), BLOCKS_PER_TASK if config.translate is None else 1)
        empty = True
        for blocks in tasks:
            empty = False
            yield file_index, plain.first_line if plain else source.first_line, source.record_lines, blocks
        totals.comment_lines += (plain or source).comment_lines
        if empty:
            totals.empty_files.append(f"{source.name}: {source.nothing}")


def _together(spans: Iterator[Span], at_once: int) -> Iterator[list[Span]]:
    """The first alone: where there is no other, there is nothing to start processes for."""
    size = 1
    while task := list(islice(spans, size)):
        yield task
        size = at_once


@dataclass
class _Account:
    """Takes the blocks in their order, and knows the ordinal and the line of the next."""

    spool: Spool
    totals: ScanTotals
    keys: BinaryIO
    lengths: BinaryIO
    rejected: TextIO
    strict: bool
    file_index: int = -1
    first_line: int = 0
    record_lines: int | None = None
    line: int = 0

    def collect(self, flight: _Flight, workers: Workers) -> None:
        scanned = flight.result.result()
        for payload in flight.payloads:
            workers.release(payload)
        if flight.file_index != self.file_index:
            self.file_index, self.record_lines = flight.file_index, flight.record_lines
            self.line = self.first_line = flight.first_line
        for block in scanned:
            if isinstance(block, Fault):
                raise block.error(self.spool.files[self.file_index], self.line)
            self._add(block)

    def _add(self, scanned: ScannedBlock) -> None:
        columns = memoryview(self.spool.load(scanned.columns))
        self.keys.write(columns[: KEY_BYTES * scanned.records])
        lengths = np.frombuffer(columns, np.int32, offset=KEY_BYTES * scanned.records)
        self.lengths.write(lengths.data)
        self._reject(scanned)
        self.line += scanned.newlines
        block = SpooledBlock(
            self.spool.records, scanned.records, self.file_index, scanned.text, scanned.places, scanned.headers
        )
        self.spool.blocks.append(block)
        self.totals.residues += scanned.residues
        self.totals.truncated += int(above(lengths, self.spool.residue_limit).sum())
        self.totals.beyond_trained_length += int(above(lengths, self.spool.trained_limit).sum())
        self.totals.unknown_residues += scanned.unknown_residues
        self.totals.gaps_removed += scanned.gaps_removed
        self.totals.comment_lines += scanned.comment_lines
        self.totals.stopped_frames += scanned.stopped_frames
        self.totals.rejected += len(scanned.rejected)

    def _reject(self, scanned: ScannedBlock) -> None:
        file = self.spool.files[self.file_index]
        for position, offset, name, reason in scanned.rejected:
            message, line = rejection(name, reason), self._line(offset)
            if self.strict:
                remedy = "correct or remove it, or run without --strict"
                raise FastaFormatError(message, file=file, line=line, remedy=remedy)
            if len(self.totals.first_rejected) < REASONS_SHOWN:
                self.totals.first_rejected.append(f"{file}, line {line}: {message}")
            ordinal = self.spool.records + position
            fields = (table_cell(file), str(line), str(ordinal), table_cell(name), table_cell(reason))
            self.rejected.write("\t".join(fields) + "\n")

    def _line(self, offset: int) -> int:
        """Where a record of the next block begins in its file."""
        line = self.line + offset
        return line if self.record_lines is None else self.first_line + (line - self.first_line) // self.record_lines
