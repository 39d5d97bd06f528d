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


@dataclass(frozen=True)
class TextColumn:
    """UTF-8 texts that stand end to end in ``data``; text i ends where text i + 1 begins."""

    data: bytes
    offsets: npt.NDArray[np.int32]

    @classmethod
    def of(cls, texts: list[str]) -> TextColumn:
        """Make a column of texts."""
        encoded = [text.encode() for text in texts]
        return cls(b"".join(encoded), np.cumsum([0, *map(len, encoded)], dtype=np.int32))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        return self.data[self.offsets[i] : self.offsets[i + 1]].decode()


@dataclass
class ParsedBlock:
    """The records of one block, column by column.

    ``lengths`` counts residues before truncation and is -1 where ``reasons`` (by position in the block) has an
    entry; such a record has an empty sequence and a zero key. ``keys`` holds 16 bytes for each record: xxh3_128 of
    the truncated sequence, most significant byte first.
    """

    ids: TextColumn
    descriptions: TextColumn
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
    rest = b""
    gathered: list[bytes] = []
    line, gathered_bytes = 0, 0
    for piece in source.blocks(size):
        line = line or source.first_line
        gathered.append(piece)
        gathered_bytes += len(piece)
        if gathered_bytes < size:
            continue
        searched = max(len(rest) - 1, 0)
        pending = b"".join([rest, *gathered])
        gathered, gathered_bytes = [], 0
        cut = pending.rfind(b"\n>", searched) + 1
        rest = pending[cut:]
        if cut:
            yield pending[:cut], line
            line = source.newlines - rest.count(b"\n") + 1
        if len(rest) > RECORD_BYTES:
            raise record_too_long(source.name, line)
    if rest or gathered:
        yield b"".join([rest, *gathered]), line


def parse_block(block: bytes, first_line: int, residue_limit: int | None) -> ParsedBlock:
    """Parse a block that begins with ``>`` and holds whole records; sequences are cut after ``residue_limit``."""
    header_starts, header_ends, lines = _find_headers(block)
    ids, descriptions = _split_headers(_slices(block, header_starts + 1, header_ends))
    body_ends = np.append(header_starts[1:] - 1, len(block))
    unlined = block.replace(b"\n", b"")
    starts = header_ends - lines
    ends = np.append((header_starts - lines)[1:], len(unlined))
    bodies = _Residues(unlined, starts, ends, np.zeros(len(ids), np.int32), np.diff(ids.offsets) == 0)
    limit = len(block) if residue_limit is None else residue_limit
    sequences = bodies.cut(limit)
    tails = np.flatnonzero(ends - starts > limit)
    unclean = b"".join(sequences).translate(None, _CLEAN)
    unclean = unclean or b"".join(_slices(unlined, starts[tails] + limit, ends[tails])).translate(None, _CLEAN)
    raw = None
    if unclean:
        raw = _slices(block, header_ends + 1, body_ends)
        bodies = _normalise(raw, bodies.rejected)
    bodies.rejected |= bodies.starts == bodies.ends
    if unclean or bodies.rejected.any():
        sequences = bodies.cut(limit)
    lengths = (bodies.ends - bodies.starts).astype(np.int32)
    lengths[bodies.rejected] = REJECTED_LENGTH
    bodies.unknown[bodies.rejected] = 0
    keys = bytearray(b"".join(map(xxhash.xxh3_128_digest, sequences)))
    reasons = {}
    for i in np.flatnonzero(bodies.rejected).tolist():
        keys[i * KEY_BYTES : (i + 1) * KEY_BYTES] = bytes(KEY_BYTES)
        reasons[i] = _reason(ids[i], raw[i] if raw else b"")
    return ParsedBlock(ids, descriptions, sequences, lengths, bodies.unknown, bytes(keys), first_line + lines, reasons)


@dataclass
class _Residues:
    """Where the residues of each record stand in a text; ``unknown`` and ``rejected`` hold one entry for each."""

    text: bytes
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    unknown: npt.NDArray[np.int32]
    rejected: npt.NDArray[np.bool_]

    def cut(self, limit: int) -> list[bytes]:
        """The sequences, cut after ``limit`` residues; nothing of a rejected one."""
        kept = np.minimum(self.ends - self.starts, limit)
        kept[self.rejected] = 0
        return _slices(self.text, self.starts, self.starts + kept)


def _normalise(bodies: list[bytes], rejected: npt.NDArray[np.bool_]) -> _Residues:
    """Do what ``normalise_bytes`` does, for all records at once; adds to ``rejected`` what holds symbols."""
    text = _GAP.join(bodies).translate(_UPPER, REMOVED)
    residues = np.frombuffer(text, np.uint8)
    gaps = np.flatnonzero(residues == 0)
    starts = np.append(0, gaps + 1)
    ends = np.append(gaps, len(text))
    filled = ends > starts
    ends[filled] -= residues[ends[filled] - 1] == _STOP
    unknown = _count_unknown(residues, gaps, ends)
    rejected[np.searchsorted(gaps, np.flatnonzero(_SYMBOL[residues]))] = True
    return _Residues(text.translate(_TO_X), starts, ends, unknown, rejected)


def _find_headers(block: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Start, end (without the line end) and 0-based line of each header in a block."""
    text = np.frombuffer(block, np.uint8)
    newlines = np.flatnonzero(text == _NEWLINE)
    begins = newlines + 1 if block[-1] != _NEWLINE else newlines[:-1] + 1
    lines = np.append(0, np.flatnonzero(text[begins] == _HEADER) + 1)
    starts = np.append(0, begins)[lines]
    return starts, np.append(newlines, len(block))[lines], lines


def _split_headers(headers: list[bytes]) -> tuple[TextColumn, TextColumn]:
    """Do what ``parse_header`` does, in one piece where no header is out of the ordinary."""
    joined = b"\n".join(headers)
    if not joined.translate(None, _PLAIN):
        columns = _split_plain_headers(joined)
        if columns is not None:
            return columns
    parsed = [parse_header(header) for header in headers]
    return TextColumn.of([name for name, _ in parsed]), TextColumn.of([description for _, description in parsed])


def _split_plain_headers(joined: bytes) -> tuple[TextColumn, TextColumn] | None:
    """Split headers, one a line, at their first white space; None where one has white space at an edge."""
    text = np.frombuffer(joined, np.uint8)
    blank = text <= ord(" ")
    ends = np.append(np.flatnonzero(text == _NEWLINE), len(text))
    starts = np.append(0, ends[:-1] + 1)
    blanks = np.append(np.flatnonzero(blank), len(text))
    id_ends = blanks[np.searchsorted(blanks, starts)]
    descriptions = np.minimum(id_ends + 1, ends)
    described = id_ends < ends
    if (id_ends == starts).any() or (blank[descriptions[described] - (descriptions == ends)[described]]).any():
        return None
    if blank[ends[described] - 1].any():
        return None
    return _gather(text, starts, id_ends), _gather(text, descriptions, ends)


def _gather(text: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> TextColumn:
    """The stretches of a text, end to end."""
    lengths = ends - starts
    spans = np.empty(2 * len(starts) + 1, np.int64)
    spans[0:-1:2] = starts - np.append(0, ends[:-1])
    spans[1::2] = lengths
    spans[-1] = len(text) - ends[-1]
    inside = np.zeros(len(spans), np.bool_)
    inside[1::2] = True
    offsets = np.zeros(len(starts) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return TextColumn(text[np.repeat(inside, spans)].tobytes(), offsets)


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
