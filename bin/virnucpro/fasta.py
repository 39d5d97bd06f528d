"""FASTA rules: what a record is, what its residues become, and what is rejected.

``split.parse`` applies the same rules to whole blocks of bytes; what it yields equals what is read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from virnucpro.compression import READ_BYTES
from virnucpro.errors import FastaFormatError
from virnucpro.fasta_source import RECORD_BYTES, WHITE_SPACE, FastaSource

#: The 25 letters that ESM-2 has a token for; O and U included.
RESIDUES: Final = "ACDEFGHIKLMNPQRSTVWYBXZUO"
#: Removed wherever they stand: white space, and the gap characters of alignments.
REMOVED: Final = WHITE_SPACE + b"-."
#: Letters that ESM-2 has no token for, and a stop inside a sequence: read as X, and counted.
UNKNOWN: Final = b"J*"

_UPPER: Final = bytes(range(256)).upper()
_TO_X: Final = bytes.maketrans(UNKNOWN, b"X" * len(UNKNOWN))
_LEGAL: Final = RESIDUES.encode() + UNKNOWN
NO_ID: Final = "no id after '>'"
NO_RESIDUES: Final = "no residue left"


@dataclass(frozen=True, slots=True)
class Record:
    """One protein: ``sequence`` is normalised, ``line`` is the 1-based line of its header."""

    ordinal: int
    id: str
    description: str
    sequence: str
    line: int
    unknown_residues: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """One record that cannot be embedded, and why."""

    ordinal: int
    id: str
    description: str
    line: int
    reason: str


def normalise(sequence: str) -> tuple[str, int]:
    """Return the sequence as the model reads it, and how many of its letters were replaced by X.

    Upper-cased (ASCII only); white space and ``-`` ``.`` removed; one trailing ``*`` removed; J and inner ``*``
    become X.

    Raises:
        ValueError: a digit or another symbol, or nothing left; the text is the reason.
    """
    residues, unknown = normalise_bytes(sequence.encode("utf-8", "replace"))
    return residues.decode("ascii"), unknown


def normalise_bytes(sequence: bytes) -> tuple[bytes, int]:
    """Do what ``normalise`` does, on bytes."""
    residues = sequence.translate(_UPPER, REMOVED)
    if residues.endswith(b"*"):
        residues = residues[:-1]
    symbols = residues.translate(None, _LEGAL)
    if symbols:
        raise ValueError(f"symbol {symbols.decode('utf-8', 'replace')[0]!a} in the sequence")
    if not residues:
        raise ValueError(NO_RESIDUES)
    return residues.translate(_TO_X), sum(residues.count(letter) for letter in (b"J", b"*"))


def parse_header(header: bytes) -> tuple[str, str]:
    """Split a header line (without ``>``) into id, up to the first white space, and description."""
    words = header.split(None, 1)
    if not words or header[:1].isspace():
        return "", header.strip().decode("utf-8", "replace")
    description = words[1].rstrip() if len(words) == 2 else b""
    return words[0].decode("utf-8", "replace"), description.decode("utf-8", "replace")


def read_records(path: Path, *, refuse_nucleotide: bool = False) -> Iterator[Record]:
    """Yield the records of a FASTA file (plain, .gz, .bz2, .xz, .zst, or ``-``) in order.

    Args:
        path: the file, or ``-`` for standard input.
        refuse_nucleotide: end with an error where nearly all letters are ACGTUN and none EFILPQ. Off unless asked
            for: a shard may well hold nothing but A, C, G and T, and SPLIT_FASTA has looked at the whole input.

    Raises:
        InputMissingError: the file cannot be opened.
        FastaFormatError: the file is not FASTA, or a record would be rejected; the message says where.
    """
    for record in scan_records(path, refuse_nucleotide=refuse_nucleotide):
        if isinstance(record, Rejected):
            remedy = "correct or remove this record"
            name = f"record '{record.id}'" if record.id else "a record"
            file = "standard input" if str(path) == "-" else str(path)
            raise FastaFormatError(f"{name}: {record.reason}", file=file, line=record.line, remedy=remedy)
        yield record


def scan_records(
    path: Path, *, refuse_nucleotide: bool = False, block_bytes: int = READ_BYTES
) -> Iterator[Record | Rejected]:
    """Yield every record of a file in order, also those to reject; errors as ``read_records``, for the file only."""
    source = FastaSource(path, refuse_nucleotide=refuse_nucleotide)
    header, header_line, ordinal, line = b"", 0, 0, 0
    body: list[bytes] = []
    span = 0
    for text in _lines(source, block_bytes):
        line += 1
        if text.startswith(b">"):
            if line > 1:
                yield _record(ordinal, header, header_line, body)
                ordinal += 1
            header, header_line, body, span = text[1:], source.first_line + line - 1, [], 0
        else:
            body.append(text)
        span += len(text) + 1
        if span > RECORD_BYTES:
            raise record_too_long(source.name, header_line)
    if line:
        yield _record(ordinal, header, header_line, body)


def record_too_long(file: str, line: int) -> FastaFormatError:
    """Return the error for a record that spans more than ``RECORD_BYTES``."""
    message = f"a record of more than {RECORD_BYTES} bytes"
    return FastaFormatError(message, file=file, line=line, remedy="give protein sequences in FASTA format")


def _record(ordinal: int, header: bytes, line: int, body: list[bytes]) -> Record | Rejected:
    name, description = parse_header(header)
    if not name:
        return Rejected(ordinal, name, description, line, NO_ID)
    try:
        residues, unknown = normalise_bytes(b"".join(body))
    except ValueError as error:
        return Rejected(ordinal, name, description, line, str(error))
    return Record(ordinal, name, description, residues.decode("ascii"), line, unknown)


def _lines(source: FastaSource, block_bytes: int) -> Iterator[bytes]:
    rest: list[bytes] = []
    size = 0
    for block in source.blocks(block_bytes):
        first, *others = block.split(b"\n")
        rest.append(first)
        size += len(first)
        if size > RECORD_BYTES:
            raise record_too_long(source.name, source.first_line)
        if others:
            yield b"".join(rest)
            yield from others[:-1]
            rest, size = [others[-1]], len(others[-1])
    if size:
        yield b"".join(rest)
