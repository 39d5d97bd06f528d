"""The rules of ``fasta``, applied to whole blocks of bytes at once: what comes out equals ``fasta.scan_records``."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from virnucpro.fasta import NO_ID, REMOVED, RESIDUES, UNKNOWN, normalise_bytes, parse_header
from virnucpro.split.columns import Array, joined, pieces, texts

#: Between the sequences of a block; a file with zero bytes is refused before it comes here.
_GAP: Final = b"\0"
_UPPER: Final = bytes(range(256)).upper()
_TO_X: Final = bytes.maketrans(UNKNOWN, b"X" * len(UNKNOWN))
_SYMBOL: Final = ~np.isin(np.arange(256), np.frombuffer(RESIDUES.encode() + UNKNOWN + _GAP, np.uint8))
_PLAIN: Final = bytes(range(32, 127)) + b"\t"
_NEWLINE, _HEADER, _STOP, _J, _A = b"\n>*JA"
_LETTERS: Final = 26

#: Length that stands for a rejected record.
REJECTED_LENGTH: Final = -1
KEY_BYTES: Final = 16


@dataclass
class ParsedBlock:
    """The records of one block, column by column.

    ``lengths`` counts residues before truncation and is -1 where ``reasons`` (by position in the block) has an
    entry; such a record has a zero key. ``keys`` holds 16 bytes for each record: xxh3_128 of the truncated sequence,
    most significant byte first. ``lines`` are lines of the block, from 0. The truncated sequences stand from
    ``starts`` to ``stops`` in ``rewritten``, or where that is None in the block itself, but for its line ends.
    """

    ids: pa.StringArray
    descriptions: pa.StringArray
    lengths: npt.NDArray[np.int32]
    unknown_residues: npt.NDArray[np.int32]
    keys: bytes
    lines: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int32]
    stops: npt.NDArray[np.int32]
    rewritten: bytes | None
    newlines: int
    reasons: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Layout:
    """Positions in a block; a body ends before the line end that the next header follows."""

    newlines: Array
    lines: Array
    header_starts: Array
    header_ends: Array
    body_ends: Array

    @classmethod
    def of(cls, block: bytes) -> _Layout:
        text = np.frombuffer(block, np.uint8)
        newlines = np.flatnonzero(text == _NEWLINE)
        begins = newlines + 1 if block[-1] != _NEWLINE else newlines[:-1] + 1
        lines = np.append(0, np.flatnonzero(text[begins] == _HEADER) + 1)
        starts = np.append(0, begins[lines[1:] - 1])
        ends = np.append(newlines, len(block))[lines]
        return cls(newlines, lines, starts, ends, np.append(starts[1:] - 1, len(block)))


@dataclass
class _Residues:
    """Where the residues of each record stand in a text; ``unknown`` and ``rejected`` hold one entry for each."""

    text: bytes
    starts: Array
    ends: Array
    unknown: npt.NDArray[np.int32]
    rejected: npt.NDArray[np.bool_]

    def cut(self, limit: int) -> Array:
        """Where each sequence ends once it is cut after ``limit`` residues."""
        ends: Array = np.minimum(self.ends, self.starts + limit)
        return ends


def parse_block(block: bytes, residue_limit: int | None) -> ParsedBlock:
    """Parse a block that begins with ``>`` and holds whole records; sequences are cut after ``residue_limit``."""
    layout = _Layout.of(block)
    limit = len(block) if residue_limit is None else residue_limit
    unlined = block.replace(b"\n", b"")
    header_starts = layout.header_starts - layout.lines
    starts = layout.header_ends - layout.lines
    ends = np.append(header_starts[1:], len(unlined))
    headers = pieces(unlined, np.column_stack((header_starts, starts)), 0)
    ids, descriptions = _split_plain_headers(headers) or _split_headers(headers)
    without_id = np.diff(np.frombuffer(ids.buffers()[1], np.int32)[: len(ids) + 1]) == 0
    residues = _Residues(unlined, starts, ends, np.zeros(len(ids), np.int32), without_id)
    raw = rewritten = None
    if _count_others(unlined) == _count_others(joined(headers).tobytes()):
        stops = _with_line_ends(residues.cut(limit), layout, ends)
        source_starts = np.minimum(layout.header_ends + 1, stops)
    else:
        body_starts = np.minimum(layout.header_ends + 1, layout.body_ends)
        raw = pieces(block, np.column_stack((body_starts, layout.body_ends)), 0).to_pylist()
        residues = _normalise(raw, without_id)
        rewritten, source_starts, stops = residues.text, residues.starts, residues.cut(limit)
    residues.rejected |= residues.starts == residues.ends
    lengths = (residues.ends - residues.starts).astype(np.int32)
    lengths[residues.rejected] = REJECTED_LENGTH
    residues.unknown[residues.rejected] = 0
    keys = bytearray(_keys(residues, limit))
    reasons = {}
    for i in np.flatnonzero(residues.rejected).tolist():
        keys[i * KEY_BYTES : (i + 1) * KEY_BYTES] = bytes(KEY_BYTES)
        reasons[i] = _reason(ids[i].as_py(), raw[i] if raw else b"")
    return ParsedBlock(
        ids=ids,
        descriptions=descriptions,
        lengths=lengths,
        unknown_residues=residues.unknown,
        keys=bytes(keys),
        lines=layout.lines,
        starts=source_starts.astype(np.int32),
        stops=stops.astype(np.int32),
        rewritten=rewritten,
        newlines=len(layout.newlines),
        reasons=reasons,
    )


def _keys(residues: _Residues, limit: int) -> bytes:
    """Hash each sequence, read off the text in turn with what stands before it: a text of their own would cost more."""
    steps = np.diff(np.column_stack((residues.starts, residues.cut(limit))).ravel(), prepend=0)
    read = map(io.BytesIO(residues.text).read, steps.tolist())
    return b"".join(map(xxhash.xxh3_128_digest, islice(read, 1, None, 2)))


def _count_others(text: bytes) -> int:
    """How many bytes are none of the 25 letters: all of A to Z except J."""
    letters = np.frombuffer(text, np.uint8)
    count = int(np.count_nonzero(letters - np.uint8(_A) >= _LETTERS))
    return count + text.count(b"J") if b"J" in text else count


def _with_line_ends(stops: Array, layout: _Layout, ends: Array) -> Array:
    """Positions in a block for positions in the block without line ends, of what is cut; otherwise the body's end."""
    cut = np.flatnonzero(stops < ends)
    positions = layout.body_ends.copy()
    if len(cut):
        before = np.searchsorted(layout.newlines - np.arange(len(layout.newlines)), stops[cut])
        positions[cut] = stops[cut] + before
    return positions


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


def _count_unknown(residues: npt.NDArray[np.uint8], gaps: Array, ends: Array) -> npt.NDArray[np.int32]:
    positions = np.flatnonzero((residues == _J) | (residues == _STOP))
    owners = np.searchsorted(gaps, positions)
    return np.bincount(owners[positions < ends[owners]], minlength=len(ends)).astype(np.int32)


def _split_headers(headers: pa.BinaryArray) -> tuple[pa.StringArray, pa.StringArray]:
    """Do what ``parse_header`` does, for headers with their ``>``."""
    parsed = [parse_header(header[1:]) for header in headers.to_pylist()]
    return texts([name for name, _ in parsed]), texts([description for _, description in parsed])


def _split_plain_headers(headers: pa.BinaryArray) -> tuple[pa.StringArray, pa.StringArray] | None:
    """Split headers at their first white space; None where one is out of the ordinary."""
    text = joined(headers)
    if text.max() >= 127 or (text.min() < ord(" ") and text.tobytes().translate(None, _PLAIN)):
        return None
    offsets = np.frombuffer(headers.buffers()[1], np.int32)[: len(headers) + 1]
    starts, ends = offsets[:-1] + 1, offsets[1:]
    blank = text <= ord(" ")
    blanks = np.append(np.flatnonzero(blank), len(text))
    id_ends = np.minimum(blanks[np.searchsorted(blanks, starts)], ends)
    descriptions = np.minimum(id_ends + 1, ends)
    if (id_ends == starts).any() or blank[ends - 1].any() or blank[descriptions[descriptions < ends]].any():
        return None
    edges = np.column_stack((offsets[:-1], starts, id_ends, descriptions))
    return pieces(text, edges, 1).view(pa.string()), pieces(text, edges, 3).view(pa.string())


def _reason(name: str, body: Any) -> str:
    if not name:
        return NO_ID
    try:
        normalise_bytes(body)
    except ValueError as error:
        return str(error)
    raise AssertionError("a record was rejected that the rules accept")
