"""The rules of ``fasta``, applied to whole blocks of bytes at once: what comes out equals ``fasta.scan_records``."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from virnucpro.fasta import GAPS, LEGAL, TO_X, UPPER, normalise, parse_header
from virnucpro.fasta_source import WHITE_SPACE
from virnucpro.fasta_text import COMMENT, OTHER_LINE_END, Fault, find_fault, without_comments
from virnucpro.split.columns import Array, joined, pieces, texts

#: Between the sequences of a block, which holds no zero byte.
_BETWEEN: Final = b"\0"
_EDGE, _TOKENLESS, _SYMBOL = range(1, 4)
#: What each byte of a text of sequences is: 0 for a residue.
_KINDS: Final = bytes(
    _EDGE if byte in _BETWEEN else _SYMBOL if byte not in LEGAL else 0 if TO_X[byte] == byte else _TOKENLESS
    for byte in range(256)
)
_PLAIN: Final = bytes(range(32, 127)) + b"\t"
_NEWLINE, _RETURN, _HEADER, _STOP, _DOT, _DASH, _A = b"\n\r>*.-A"
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
    ``unknown_residues`` and ``gaps_removed`` are 0 for a rejected record; ``comment_lines`` counts those of the block.
    """

    ids: pa.StringArray
    descriptions: pa.StringArray
    lengths: npt.NDArray[np.int32]
    unknown_residues: npt.NDArray[np.int32]
    gaps_removed: npt.NDArray[np.int32]
    keys: bytes
    lines: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int32]
    stops: npt.NDArray[np.int32]
    rewritten: bytes | None
    newlines: int
    comment_lines: int
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

    def has_lone_return(self, block: bytes) -> bool:
        text = np.frombuffer(block, np.uint8)
        return bool((text == _RETURN).sum() > (text[self.newlines - 1] == _RETURN).sum())


@dataclass
class _Residues:
    """Where the residues of each record stand in a text; the last four hold one entry for each.

    ``bodies`` are the lines that the text was made of, without comments; None where it is the block's own.
    """

    text: bytes
    starts: Array
    ends: Array
    unknown: npt.NDArray[np.int32]
    gaps: npt.NDArray[np.int32]
    rejected: npt.NDArray[np.bool_]
    bodies: list[bytes] | None = None
    comment_lines: int = 0

    @classmethod
    def of_letters(cls, text: bytes, starts: Array, ends: Array) -> _Residues:
        """Residues that the rules leave as they are."""
        unknown, gaps = np.zeros((2, len(starts)), np.int32)
        return cls(text, starts, ends, unknown, gaps, np.zeros(len(starts), np.bool_))

    def cut(self, limit: int) -> Array:
        """Where each sequence ends once it is cut after ``limit`` residues."""
        ends: Array = np.minimum(self.ends, self.starts + limit)
        return ends

    def reject(self, gaps: str) -> dict[int, str]:
        """Finish ``rejected``, and return the reason of each such record."""
        self.rejected |= self.starts == self.ends
        self.unknown[self.rejected] = self.gaps[self.rejected] = 0
        found = np.flatnonzero(self.rejected).tolist()
        return {i: _reason(self.bodies[i] if self.bodies else b"", gaps) for i in found}


def parse_block(block: bytes, residue_limit: int | None, gaps: str = "remove") -> ParsedBlock | Fault:
    """Parse a block that begins with ``>`` and holds whole records.

    Args:
        block: the text.
        residue_limit: residues after which a sequence is cut, or None.
        gaps: as for ``fasta.normalise``.

    Returns:
        Its records, or the first fault in it.
    """
    layout = _Layout.of(block)
    if b"\0" in block or (b"\r" in block and layout.has_lone_return(block)):
        return _fault(block)
    limit = len(block) if residue_limit is None else residue_limit
    unlined = block.replace(b"\n", b"")
    header_starts = layout.header_starts - layout.lines
    starts = layout.header_ends - layout.lines
    ends = np.append(header_starts[1:], len(unlined))
    headers = pieces(unlined, np.column_stack((header_starts, starts)), 0)
    split_headers = _split_plain_headers(headers)
    if split_headers is None and _hides_header(headers):
        return _fault(block)
    ids, descriptions = split_headers or _split_headers(headers)
    rewritten = None
    if _count_others(unlined) == _count_others(joined(headers).tobytes()):
        residues = _Residues.of_letters(unlined, starts, ends)
        stops = _with_line_ends(residues.cut(limit), layout, ends)
        source_starts = np.minimum(layout.header_ends + 1, stops)
    else:
        residues = _normalise(block, layout, gaps)
        if b">" in residues.text:
            return _fault(block)
        rewritten, source_starts, stops = residues.text, residues.starts, residues.cut(limit)
    reasons = residues.reject(gaps)
    lengths = (residues.ends - residues.starts).astype(np.int32)
    lengths[residues.rejected] = REJECTED_LENGTH
    keys = bytearray(_keys(residues, limit))
    for i in reasons:
        keys[i * KEY_BYTES : (i + 1) * KEY_BYTES] = bytes(KEY_BYTES)
    return ParsedBlock(
        ids=ids,
        descriptions=descriptions,
        lengths=lengths,
        unknown_residues=residues.unknown,
        gaps_removed=residues.gaps,
        keys=bytes(keys),
        lines=layout.lines,
        starts=source_starts.astype(np.int32),
        stops=stops.astype(np.int32),
        rewritten=rewritten,
        newlines=len(layout.newlines),
        comment_lines=residues.comment_lines,
        reasons=reasons,
    )


def _fault(block: bytes) -> Fault:
    fault = find_fault(io.BytesIO(block))
    if fault is None:
        raise AssertionError("a block was refused that the rules accept")
    return fault


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


def _normalise(block: bytes, layout: _Layout, gaps: str) -> _Residues:
    """Do what ``fasta.normalise`` does, for all records at once; a ``>`` inside a line stays in the text.

    ``rejected`` holds those with symbols, or with gaps where these are rejected.
    """
    body_starts = np.minimum(layout.header_ends + 1, layout.body_ends)
    bodies = pieces(block, np.column_stack((body_starts, layout.body_ends)), 0).to_pylist()
    text = _BETWEEN.join(bodies).translate(UPPER, WHITE_SPACE)
    comment_lines = 0
    if COMMENT in text:
        bodies, counts = zip(*map(without_comments, bodies), strict=True)
        text, comment_lines = _BETWEEN.join(bodies).translate(UPPER, WHITE_SPACE), sum(counts)
    removed = np.zeros(len(bodies), np.int32)
    if gaps != "unknown" and any(gap in text for gap in (b"-", b".")):
        with_gaps, text = text, text.translate(None, GAPS)
        removed = _count_gaps(with_gaps, text)
    residues = np.frombuffer(text, np.uint8)
    kinds = np.frombuffer(text.translate(_KINDS), np.uint8)
    others = np.flatnonzero(kinds != 0)
    kinds = kinds[others]
    edges = others[kinds == _EDGE]
    starts, ends = np.append(0, edges + 1), np.append(edges, len(text))
    filled = ends > starts
    last = residues[ends[filled] - 1]
    ends[filled] -= (last == _STOP) | (last == _DOT)
    unknown = _count(others[kinds == _TOKENLESS], edges, ends)
    rejected = (removed > 0) & (gaps == "reject")
    rejected[np.searchsorted(edges, others[kinds == _SYMBOL])] = True
    return _Residues(text.translate(TO_X), starts, ends, unknown, removed, rejected, bodies, comment_lines)


def _count_gaps(text: bytes, residues: bytes) -> npt.NDArray[np.int32]:
    """Gaps of each record, but for a ``.`` at its end, which is a stop unless a ``*`` among its residues is."""
    letters = np.frombuffer(text, np.uint8)
    edges = np.flatnonzero(letters == 0)
    ends = np.append(edges, len(text))
    starred = _last_letters(np.frombuffer(residues, np.uint8)) == _STOP
    ends -= (_last_letters(letters) == _DOT) & ~starred
    return _count(np.flatnonzero((letters == _DASH) | (letters == _DOT)), edges, ends)


def _last_letters(letters: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The last letter of each record, or what stands before it where it has none."""
    ends = np.append(np.flatnonzero(letters == 0), len(letters))
    last: npt.NDArray[np.uint8] = np.append(letters, np.uint8(0))[ends - 1]
    return last


def _count(positions: Array, edges: Array, ends: Array) -> npt.NDArray[np.int32]:
    """How many positions are in each record, before its end; ``edges`` are where records meet."""
    owners = np.searchsorted(edges, positions)
    return np.bincount(owners[positions < ends[owners]], minlength=len(ends)).astype(np.int32)


def _hides_header(headers: pa.BinaryArray) -> bool:
    text = joined(headers).tobytes()
    return text.count(b">") > len(headers) and any(map(OTHER_LINE_END.search, headers.to_pylist()))


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


def _reason(body: bytes, gaps: str) -> str:
    try:
        normalise(body, gaps)
    except ValueError as error:
        return str(error)
    raise AssertionError("a record was rejected that the rules accept")
