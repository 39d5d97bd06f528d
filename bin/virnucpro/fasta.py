"""FASTA rules: what a record is, what its residues become, and what is rejected.

``split.parse`` applies the same rules to whole blocks of bytes; what it yields equals what is read here.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from virnucpro.compression import READ_BYTES
from virnucpro.errors import FastaFormatError
from virnucpro.fasta_source import RECORD_BYTES, WHITE_SPACE, FastaSource
from virnucpro.fasta_text import COMMENT, find_fault

#: The 25 letters that ESM-2 has a token for; O and U included.
RESIDUES: Final = "ACDEFGHIKLMNPQRSTVWYBXZUO"
#: Letters that ESM-2 has no token for, and a stop inside a sequence: read as X, and counted.
UNKNOWN: Final = b"J*"
#: Gaps of alignments. A ``.`` at the end is a stop, as some tools write it.
GAPS: Final = b"-."

UPPER: Final = bytes(range(256)).upper()
#: To X: what has no token. Where gaps are removed, none is left to be translated.
TO_X: Final = bytes.maketrans(UNKNOWN + GAPS, b"X" * len(UNKNOWN + GAPS))
LEGAL: Final = RESIDUES.encode() + UNKNOWN + GAPS
NO_RESIDUES: Final = "no residue left"


@dataclass(frozen=True, slots=True)
class Record:
    """One protein: ``sequence`` is normalised, ``line`` is the 1-based line of its header; ``id`` may be empty."""

    ordinal: int
    id: str
    description: str
    sequence: str
    line: int
    unknown_residues: int
    gaps_removed: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """One record that cannot be embedded, and why."""

    ordinal: int
    id: str
    description: str
    line: int
    reason: str


class Normalised(NamedTuple):
    """A sequence as the model reads it, how many of its letters became X, and how many gaps were removed."""

    residues: bytes
    unknown_residues: int
    gaps_removed: int


def normalise(body: bytes, gaps: str = "remove") -> Normalised:
    """Return what the model reads of the lines of a sequence.

    Upper-cased (ASCII only); white space and one stop at the end (``*`` or ``.``) removed; J and inner ``*`` become X.

    Args:
        body: the lines, without comments.
        gaps: what becomes of ``-`` and inner ``.``: ``remove``, ``unknown`` (X) or ``reject``.

    Raises:
        ValueError: a digit or another symbol, a gap to reject, or nothing left; the text is the reason.
    """
    letters = body.translate(UPPER, WHITE_SPACE)
    symbols = letters.translate(None, LEGAL)
    if symbols:
        raise ValueError(f"symbol {symbols.decode('utf-8', 'replace')[0]!a} in the sequence")
    residues = letters.translate(None, GAPS)
    # One stop at the end goes without a trace; where that is a star, a dot behind it is a gap.
    dot_is_stop = letters.endswith(b".") and (gaps == "unknown" or not residues.endswith(b"*"))
    found = len(letters) - len(residues) - dot_is_stop
    if found and gaps == "reject":
        raise ValueError(f"gap '{next(chr(letter) for letter in letters if letter in GAPS)}' in the sequence")
    if gaps == "unknown":
        residues = letters[:-1] if letters.endswith((b"*", b".")) else letters
    else:
        residues = residues.removesuffix(b"*")
    if not residues:
        raise ValueError(NO_RESIDUES)
    unknown = sum(map(residues.count, (b"J", b"*", b"-", b".")))
    return Normalised(residues.translate(TO_X), unknown, found if gaps == "remove" else 0)


def parse_header(header: bytes) -> tuple[str, str]:
    """Split a header line (without ``>``) into id, the first word, and description, what follows it."""
    words = header.split(None, 1)
    if not words:
        return "", ""
    description = words[1].rstrip() if len(words) == 2 else b""
    return words[0].decode("utf-8", "replace"), description.decode("utf-8", "replace")


def read_records(path: Path, *, refuse_nucleotide: bool = False, gaps: str = "remove") -> Iterator[Record]:
    """Yield the records of a FASTA file (plain, .gz, .bz2, .xz, .zst, or ``-``) in order.

    Args:
        path: the file, or ``-`` for standard input.
        refuse_nucleotide: end with an error where nearly all letters are ACGTUN and none EFILPQ. Off unless asked
            for: a shard may well hold nothing but A, C, G and T, and SPLIT_FASTA has looked at the whole input.
        gaps: as for ``normalise``.

    Raises:
        InputMissingError: the file cannot be opened.
        FastaFormatError: the file is not FASTA, or a record would be rejected; the message says where.
    """
    for record in scan_records(path, refuse_nucleotide=refuse_nucleotide, gaps=gaps):
        if isinstance(record, Rejected):
            file = "standard input" if str(path) == "-" else str(path)
            message, remedy = rejection(record.id, record.reason), "correct or remove this record"
            raise FastaFormatError(message, file=file, line=record.line, remedy=remedy)
        yield record


def scan_records(
    path: Path, *, refuse_nucleotide: bool = False, block_bytes: int = READ_BYTES, gaps: str = "remove"
) -> Iterator[Record | Rejected]:
    """Yield every record of a file in order, also those to reject; errors as ``read_records``, for the file only."""
    source = FastaSource(path, expected="protein" if refuse_nucleotide else None)
    line = 0
    for ordinal, lines in enumerate(_records(source, block_bytes)):
        first_line = source.first_line + line
        if fault := find_fault(lines):
            raise fault.error(source.name, first_line)
        yield _record(ordinal, lines, first_line, gaps)
        line += len(lines)


def normalised(ordinal: int, name: str, description: str, text: bytes, line: int, gaps: str) -> Record | Rejected:
    """The record of a sequence as ``normalise`` gives it, or why there is none."""
    try:
        found = normalise(text, gaps)
    except ValueError as error:
        return Rejected(ordinal, name, description, line, str(error))
    residues = found.residues.decode("ascii")
    return Record(ordinal, name, description, residues, line, found.unknown_residues, found.gaps_removed)


def rejection(name: str, reason: str) -> str:
    """Say which record is rejected, and why."""
    return f"record '{name}': {reason}" if name else f"a record without id: {reason}"


def record_too_long(file: str, line: int) -> FastaFormatError:
    """Return the error for a record that spans more than ``RECORD_BYTES``."""
    message = f"a record of more than {RECORD_BYTES} bytes"
    return FastaFormatError(message, file=file, line=line, remedy="give protein sequences in FASTA format")


def _record(ordinal: int, lines: list[bytes], line: int, gaps: str) -> Record | Rejected:
    name, description = parse_header(lines[0][1:])
    body = b"".join(text for text in lines[1:] if not text.startswith(COMMENT))
    return normalised(ordinal, name, description, body, line, gaps)


def _records(source: FastaSource, block_bytes: int) -> Iterator[list[bytes]]:
    """Yield the lines of each record, with their ends."""
    record: list[bytes] = []
    line, span = 0, 0
    for text in _lines(source, block_bytes):
        if text.startswith(b">") and record:
            yield record
            line += len(record)
            record, span = [], 0
        record.append(text)
        span += len(text)
        if span > RECORD_BYTES:
            raise record_too_long(source.name, source.first_line + line)
    if record:
        yield record


def _lines(source: FastaSource, block_bytes: int) -> Iterator[bytes]:
    rest: list[bytes] = []
    size = 0
    for block in source.blocks(block_bytes):
        for text in io.BytesIO(block):
            rest.append(text)
            if text.endswith(b"\n"):
                yield b"".join(rest)
                rest, size = [], 0
        size += len(rest[-1]) if rest else 0
        if size > RECORD_BYTES:
            raise record_too_long(source.name, source.first_line)
    if rest:
        yield b"".join(rest)
