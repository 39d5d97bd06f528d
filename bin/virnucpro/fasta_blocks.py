"""The rules of ``fasta``, applied to whole blocks of bytes at once: what comes out equals ``fasta.scan_records``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import starmap
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from virnucpro.fasta import NO_ID, REMOVED, RESIDUES, UNKNOWN, normalise_bytes, parse_header, record_too_long
from virnucpro.fasta_source import RECORD_BYTES, FastaSource

#: Between the sequences of a block; a file with zero bytes is refused before it comes here.
_GAP: Final = b"\0"
_UPPER: Final = bytes(range(256)).upper()
_CLEAN: Final = RESIDUES.encode() + _GAP
_TO_X: Final = bytes.maketrans(UNKNOWN, b"X" * len(UNKNOWN))
_SYMBOL: Final = ~np.isin(np.arange(256), np.frombuffer(_CLEAN + UNKNOWN, np.uint8))
_PLAIN: Final = bytes(range(32, 127)) + b"\t\n"
_NEWLINE, _HEADER, _STOP, _J = b"\n>*J"

#: Length that stands for a rejected record.
REJECTED_LENGTH: Final = -1
KEY_BYTES: Final = 16


@dataclass
class ParsedBlock:
    """The records of one block, column by column.

    ``lengths`` counts residues before truncation and is -1 where ``reasons`` (by position in the block) has an
    entry; such a record has an empty sequence and a zero key. ``keys`` holds 16 bytes for each record: xxh3_128 of
    the truncated sequence, most significant byte first.
    """

    ids: list[str]
    descriptions: list[str]
    sequences: list[bytes]
    lengths: npt.NDArray[np.int32]
    unknown_residues: npt.NDArray[np.int32]
    keys: bytes
    lines: npt.NDArray[np.int64]
    reasons: dict[int, str] = field(default_factory=dict)


def cut_blocks(source: FastaSource, size: int) -> Iterator[tuple[bytes, int]]:
    """Yield pieces of about ``size`` bytes that begin with ``>`` and hold whole records, and the line each begins on.

    Raises:
        FastaFormatError: as ``FastaSource.blocks``, or a record is longer than any protein.
    """
    pending = b""
    line = None
    for piece in source.blocks(size):
        line = source.first_line if line is None else line
        searched = max(len(pending) - 1, 0)
        pending += piece
        cut = pending.rfind(b"\n>", searched) + 1
        if cut:
            yield pending[:cut], line
            line += pending.count(b"\n", 0, cut)
            pending = pending[cut:]
        if len(pending) > RECORD_BYTES:
            raise record_too_long(source.name, line)
    if pending:
        yield pending, line or 1


def parse_block(block: bytes, first_line: int, residue_limit: int | None) -> ParsedBlock:
    """Parse a block that begins with ``>`` and holds whole records; sequences are cut after ``residue_limit``."""
    header_starts, header_ends, lines = _find_headers(block)
    body_starts = header_ends + 1
    body_ends = np.append(header_starts[1:] - 1, len(block))
    headers = _slices(block, header_starts + 1, header_ends)
    bodies = _slices(block, body_starts, body_ends)
    ids, descriptions = _split_headers(headers)
    text = _GAP.join(bodies).replace(b"\n", b"")
    unclean = text.translate(None, _CLEAN)
    if unclean:
        text = text.translate(_UPPER, REMOVED)
        unclean = text.translate(None, _CLEAN)
    residues = np.frombuffer(text, np.uint8)
    gaps = np.flatnonzero(residues == 0)
    starts = np.concatenate(([0], gaps + 1))
    ends = np.append(gaps, len(text))
    unknown = np.zeros(len(ids), np.int32)
    rejected = ends == starts
    if unclean:
        filled = ~rejected
        ends[filled] -= residues[ends[filled] - 1] == _STOP
        rejected = ends == starts
        unknown = _count_unknown(residues, gaps, ends)
        rejected[np.searchsorted(gaps, np.flatnonzero(_SYMBOL[residues]))] = True
        text = text.translate(_TO_X)
    rejected[[i for i, name in enumerate(ids) if not name]] = True
    lengths = (ends - starts).astype(np.int32)
    lengths[rejected] = REJECTED_LENGTH
    unknown[rejected] = 0
    kept = np.maximum(lengths, 0) if residue_limit is None else np.clip(lengths, 0, residue_limit)
    sequences = _slices(text, starts, starts + kept)
    reasons = {i: _reason(ids[i], bodies[i]) for i in np.flatnonzero(rejected).tolist()}
    keys = bytearray(b"".join(map(xxhash.xxh3_128_digest, sequences)))
    for i in reasons:
        keys[i * KEY_BYTES : (i + 1) * KEY_BYTES] = bytes(KEY_BYTES)
    return ParsedBlock(ids, descriptions, sequences, lengths, unknown, bytes(keys), first_line + lines, reasons)


def _find_headers(block: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Start, end (without the line end) and 0-based line of each header in a block."""
    text = np.frombuffer(block, np.uint8)
    newlines = np.flatnonzero(text == _NEWLINE)
    begins = newlines + 1 if block[-1] != _NEWLINE else newlines[:-1] + 1
    lines = np.append(0, np.flatnonzero(text[begins] == _HEADER) + 1)
    starts = np.append(0, begins)[lines]
    return starts, np.append(newlines, len(block))[lines], lines


def _split_headers(headers: list[bytes]) -> tuple[list[str], list[str]]:
    """Do what ``parse_header`` does, in one piece where no header is out of the ordinary."""
    joined = b"\n".join(headers)
    if not joined.translate(None, _PLAIN) and all(headers):
        pairs = [header.split(None, 1) for header in joined.decode("ascii").split("\n")]
        if all(pair and header[0] > 32 for pair, header in zip(pairs, headers, strict=True)):
            return [pair[0] for pair in pairs], [pair[1].rstrip() if len(pair) == 2 else "" for pair in pairs]
    parsed = [parse_header(header) for header in headers]
    return [name for name, _ in parsed], [description for _, description in parsed]


def _count_unknown(
    residues: npt.NDArray[np.uint8], gaps: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    positions = np.flatnonzero((residues == _J) | (residues == _STOP))
    owners = np.searchsorted(gaps, positions)
    return np.bincount(owners[positions < ends[owners]], minlength=len(ends)).astype(np.int32)


def _reason(name: str, body: bytes) -> str:
    if not name:
        return NO_ID
    try:
        normalise_bytes(body)
    except ValueError as error:
        return str(error)
    raise AssertionError("a record was rejected that the rules accept")


def _slices(data: bytes, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> list[bytes]:
    return list(map(data.__getitem__, starmap(slice, zip(starts.tolist(), ends.tolist(), strict=True))))
