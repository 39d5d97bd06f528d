"""First pass of a split: parse every record once, and spool what the later passes need."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.config import SplitConfig
from virnucpro.errors import DataError, FastaFormatError
from virnucpro.fasta_source import FastaSource, PlainFile, zero_byte
from virnucpro.pipeline.split_columns import numbers, texts
from virnucpro.pipeline.split_cut import Span, cut_file, cut_stream
from virnucpro.pipeline.split_parse import KEY_BYTES, ParsedBlock, parse_block
from virnucpro.pipeline.split_spool import Block, Extent, Spool
from virnucpro.pipeline.split_workers import Payload, Workers, take

#: Bytes of FASTA parsed at once: small enough to stay near the cache, large enough to hide what each block costs.
BLOCK_BYTES: Final = 1 << 21
REJECTED_HEADER: Final = "file\tline\tordinal\tid\treason\n"


@dataclass(frozen=True)
class ScannedBlock:
    """What a task reports of its block; ``rejected`` holds (position, line of the block from 0, id, reason).

    ``columns`` holds the keys and then the lengths: a file carries them for less than the pipe of the result would.
    """

    columns: Extent
    records: int
    residues: int
    truncated: int
    unknown_residues: int
    newlines: int
    rejected: list[tuple[int, int, str, str]]
    text: Extent
    places: Extent
    headers: Extent


@dataclass(frozen=True)
class ZeroByte:
    """A task found a zero byte, on a line of its block from 0, and nothing else was done."""

    line: int


@dataclass
class ScanTotals:
    """Counts over all records that are not rejected, and how many are; ``plain`` holds the files read in place."""

    residues: int = 0
    truncated: int = 0
    unknown_residues: int = 0
    rejected: int = 0
    empty_files: list[str] = field(default_factory=list)
    plain: list[PlainFile] = field(default_factory=list)

    def check_unchanged(self) -> None:
        """Raise DataError where a file is not what it was when it was opened: its sequences are read twice."""
        for file in self.plain:
            facts = file.path.stat()
            if (facts.st_size, facts.st_mtime_ns) != (file.size, file.modified):
                raise DataError(f"{file.name}: changed while it was read; run again once it is complete")


@dataclass
class _Flight:
    file_index: int
    first_line: int
    payload: Payload | Span
    result: Future[ScannedBlock | ZeroByte]


def scan(config: SplitConfig, spool: Spool, rejected: TextIO, workers: Workers) -> ScanTotals:
    """Fill the spool with every record of the inputs, and ``rejected`` with those that cannot be embedded.

    Raises:
        InputMissingError, FastaFormatError: an input cannot be read; with ``strict``, a record is rejected.
    """
    totals = ScanTotals()
    rejected.write(REJECTED_HEADER)
    flights: deque[_Flight] = deque()
    with spool.path("keys").open("wb") as keys, spool.path("lengths").open("wb") as lengths:
        ledger = _Account(spool, totals, keys, lengths, rejected, config.strict)
        for number, (file_index, first_line, block) in enumerate(_blocks(config, spool.files, totals)):
            if number == 1:
                workers.fork()
            while flights and (workers.full(len(flights)) or flights[0].result.done()):
                ledger.collect(flights.popleft(), workers)
            payload = block if isinstance(block, Span) else workers.put(block)
            result = workers.submit(scan_block, spool.directory, payload, spool.residue_limit)
            flights.append(_Flight(file_index, first_line, payload, result))
        while flights:
            ledger.collect(flights.popleft(), workers)
    for copied in spool.directory.glob("columns-*"):
        copied.unlink()
    return totals


def _blocks(config: SplitConfig, names: Sequence[str], totals: ScanTotals) -> Iterator[tuple[int, int, bytes | Span]]:
    """Yield the number of the file, the line on which its first record begins, and a block of it."""
    for file_index, path in enumerate(config.inputs):
        source = FastaSource(path, name=names[file_index], refuse_nucleotide=True)
        plain = source.plain_file()
        blocks: Iterator[bytes | Span]
        if plain is None:
            blocks = cut_stream(source, BLOCK_BYTES)
        else:
            totals.plain.append(plain)
            blocks = cut_file(plain, BLOCK_BYTES)
        empty = True
        for block in blocks:
            empty = False
            yield file_index, plain.first_line if plain else source.first_line, block
        if empty:
            totals.empty_files.append(source.name)


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
    line: int = 0

    def collect(self, flight: _Flight, workers: Workers) -> None:
        scanned = flight.result.result()
        workers.release(flight.payload)
        if flight.file_index != self.file_index:
            self.file_index, self.line = flight.file_index, flight.first_line
        if isinstance(scanned, ZeroByte):
            raise zero_byte(self.spool.files[self.file_index], self.line + scanned.line)
        columns = memoryview(self.spool.load(scanned.columns))
        self.keys.write(columns[: KEY_BYTES * scanned.records])
        self.lengths.write(columns[KEY_BYTES * scanned.records :])
        self._reject(scanned)
        self.line += scanned.newlines
        block = Block(
            self.spool.records, scanned.records, self.file_index, scanned.text, scanned.places, scanned.headers
        )
        self.spool.blocks.append(block)
        self.totals.residues += scanned.residues
        self.totals.truncated += scanned.truncated
        self.totals.unknown_residues += scanned.unknown_residues
        self.totals.rejected += len(scanned.rejected)

    def _reject(self, scanned: ScannedBlock) -> None:
        file = self.spool.files[self.file_index]
        for position, line, name, reason in scanned.rejected:
            if self.strict:
                remedy = "correct or remove it, or run without --strict"
                raise FastaFormatError(f"record '{name}': {reason}", file=file, line=self.line + line, remedy=remedy)
            ordinal = self.spool.records + position
            fields = (_one_cell(file), str(self.line + line), str(ordinal), _one_cell(name), reason)
            self.rejected.write("\t".join(fields) + "\n")


def _one_cell(text: str) -> str:
    return " ".join(text.replace("\t", " ").splitlines())


def scan_block(directory: Path, payload: Payload | Span, residue_limit: int | None) -> ScannedBlock | ZeroByte:
    """Parse one block and spool its headers and the places of its sequences (a task of ``Workers``)."""
    text = payload.read() if isinstance(payload, Span) else take(payload)
    zero = text.find(b"\0")
    if zero >= 0:
        return ZeroByte(text.count(b"\n", 0, zero))
    block = parse_block(text, residue_limit)
    lengths = np.maximum(block.lengths, 0)
    truncated = 0 if residue_limit is None else int((lengths > residue_limit).sum())
    process = os.getpid()
    if isinstance(payload, Span) and block.rewritten is None:
        extent = Extent(str(payload.path.absolute()), payload.offset, payload.size)
    else:
        extent = _append(directory, f"sequences-{process}", text if block.rewritten is None else block.rewritten)
    return ScannedBlock(
        columns=_append(directory, f"columns-{process}", block.keys + block.lengths.tobytes()),
        records=len(block.ids),
        residues=int(lengths.sum()),
        truncated=truncated,
        unknown_residues=int(block.unknown_residues.sum()),
        newlines=block.newlines,
        rejected=[(i, int(block.lines[i]), block.ids[i].as_py(), reason) for i, reason in block.reasons.items()],
        text=extent,
        places=_append(directory, f"places-{process}", np.column_stack((block.starts, block.stops)).tobytes()),
        headers=_append(directory, f"headers-{process}", _encode_headers(block)),
    )


def _encode_headers(block: ParsedBlock) -> pa.Buffer:
    rejected = block.lengths < 0
    reasons = texts([block.reasons.get(i, "") for i in range(len(rejected))]) if block.reasons else None
    batch = pa.record_batch(
        {
            "id": block.ids,
            "description": block.descriptions,
            "unknown_residues": numbers(block.unknown_residues, rejected),
            "reason": pa.nulls(len(rejected), pa.string()) if reasons is None else _null_where_empty(reasons, rejected),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def _null_where_empty(reasons: pa.StringArray, rejected: npt.NDArray[np.bool_]) -> pa.StringArray:
    _, offsets, data = reasons.buffers()
    return pa.StringArray.from_buffers(len(reasons), offsets, data, numbers(rejected).buffers()[1])


def _append(directory: Path, file: str, data: bytes | pa.Buffer) -> Extent:
    with (directory / file).open("ab") as stream:
        offset = stream.tell()
        stream.write(data)
    return Extent(file, offset, len(data))
