"""First pass of a split: parse every record once, and spool what the later passes need."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.config import SplitConfig
from virnucpro.errors import FastaFormatError
from virnucpro.fasta_blocks import ParsedBlock, cut_blocks, parse_block
from virnucpro.fasta_source import FastaSource
from virnucpro.pipeline.split_columns import numbers, strings, texts
from virnucpro.pipeline.split_spool import Block, Extent, Spool
from virnucpro.pipeline.split_workers import Payload, Workers, take

#: Bytes of FASTA parsed at once: small enough to stay near the cache, large enough to hide what each block costs.
BLOCK_BYTES: Final = 1 << 21
REJECTED_HEADER: Final = "file\tline\tordinal\tid\treason\n"


@dataclass(frozen=True)
class ScannedBlock:
    """What a task reports of its block; ``rejected`` holds (position, line, id, reason)."""

    keys: bytes
    lengths: bytes
    records: int
    residues: int
    truncated: int
    unknown_residues: int
    rejected: list[tuple[int, int, str, str]]
    sequences: Extent
    headers: Extent


@dataclass
class ScanTotals:
    """Counts over all records that are not rejected, and how many are."""

    residues: int = 0
    truncated: int = 0
    unknown_residues: int = 0
    rejected: int = 0
    empty_files: list[str] = field(default_factory=list)


@dataclass
class _Flight:
    file_index: int
    payload: Payload
    result: Future[ScannedBlock]


def scan(config: SplitConfig, spool: Spool, rejected: TextIO, workers: Workers) -> ScanTotals:
    """Fill the spool with every record of the inputs, and ``rejected`` with those that cannot be embedded.

    Raises:
        InputMissingError, FastaFormatError: an input cannot be read; with ``strict``, a record is rejected.
    """
    totals = ScanTotals()
    rejected.write(REJECTED_HEADER)
    flights: deque[_Flight] = deque()
    with spool.path("keys").open("wb") as keys, spool.path("lengths").open("wb") as lengths:

        def collect() -> None:
            flight = flights.popleft()
            scanned = flight.result.result()
            workers.release(flight.payload)
            keys.write(scanned.keys)
            lengths.write(scanned.lengths)
            _account(scanned, flight.file_index, spool, totals, rejected, config.strict)

        for number, (file_index, block, line) in enumerate(_blocks(config, spool.files, totals)):
            if number == 1:
                workers.fork()
            while flights and (workers.full or flights[0].result.done()):
                collect()
            payload = workers.put(block)
            result = workers.submit(scan_block, spool.directory, payload, line, spool.residue_limit)
            flights.append(_Flight(file_index, payload, result))
        while flights:
            collect()
    return totals


def _blocks(config: SplitConfig, names: Sequence[str], totals: ScanTotals) -> Iterator[tuple[int, bytes, int]]:
    for file_index, path in enumerate(config.inputs):
        source = FastaSource(path, name=names[file_index], refuse_nucleotide=True)
        empty = True
        for block, line in cut_blocks(source, BLOCK_BYTES):
            empty = False
            yield file_index, block, line
        if empty:
            totals.empty_files.append(source.name)


def _account(
    scanned: ScannedBlock, file_index: int, spool: Spool, totals: ScanTotals, rejected: TextIO, strict: bool
) -> None:
    first = spool.records
    file = spool.files[file_index]
    for position, line, name, reason in scanned.rejected:
        if strict:
            remedy = "correct or remove it, or run without --strict"
            raise FastaFormatError(f"record '{name}': {reason}", file=file, line=line, remedy=remedy)
        fields = (_one_cell(file), str(line), str(first + position), _one_cell(name), reason)
        rejected.write("\t".join(fields) + "\n")
    spool.blocks.append(Block(first, scanned.records, file_index, scanned.sequences, scanned.headers))
    totals.residues += scanned.residues
    totals.truncated += scanned.truncated
    totals.unknown_residues += scanned.unknown_residues
    totals.rejected += len(scanned.rejected)


def _one_cell(text: str) -> str:
    return " ".join(text.replace("\t", " ").splitlines())


def scan_block(directory: Path, payload: Payload, line: int, residue_limit: int | None) -> ScannedBlock:
    """Parse one block and spool its sequences and headers (a task of ``Workers``)."""
    block = parse_block(take(payload), line, residue_limit)
    lengths = np.maximum(block.lengths, 0)
    truncated = 0 if residue_limit is None else int((lengths > residue_limit).sum())
    process = os.getpid()
    return ScannedBlock(
        keys=block.keys,
        lengths=block.lengths.tobytes(),
        records=len(block.ids),
        residues=int(lengths.sum()),
        truncated=truncated,
        unknown_residues=int(block.unknown_residues.sum()),
        rejected=[(i, int(block.lines[i]), block.ids[i], reason) for i, reason in block.reasons.items()],
        sequences=_append(directory, f"sequences-{process}", b"".join(block.sequences)),
        headers=_append(directory, f"headers-{process}", _encode_headers(block)),
    )


def _encode_headers(block: ParsedBlock) -> pa.Buffer:
    rejected = block.lengths < 0
    reasons = texts([block.reasons.get(i, "") for i in range(len(rejected))]) if block.reasons else None
    batch = pa.record_batch(
        {
            "id": strings(block.ids.data, block.ids.offsets),
            "description": strings(block.descriptions.data, block.descriptions.offsets),
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
