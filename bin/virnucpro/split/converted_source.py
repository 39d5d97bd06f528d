"""A file of proteins that is no FASTA, read as FASTA: the parser never sees the file.

Each record takes two lines; where records have lines in their file, each of these takes two, so that a place is told.
"""

from __future__ import annotations

import io
import re
from abc import abstractmethod
from collections.abc import Iterator
from itertools import chain, islice
from typing import BinaryIO, Final, NamedTuple

from virnucpro.fasta_source import FastaSource, PlainFile

#: Of the header and of the sequence.
_LINES: Final = 2
#: Sequences looked at to tell nucleotides from proteins.
_SAMPLE_RECORDS: Final = 1000
#: What ends lines somewhere, and other characters that no header shows.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]+")
#: What would be a header, a comment or binary data at a line's start: no letter of a sequence either way.
_MARKS: Final = str.maketrans(dict.fromkeys(">;\0", "?"))


class Protein(NamedTuple):
    """One record as its file has it; where a run translates, a contig. ``line`` is where it begins, if it has one."""

    id: str
    description: str
    sequence: str
    line: int | None = None


class ConvertedSource(FastaSource):
    """A source whose file a subclass reads as proteins; errors as ``FastaSource``."""

    record_lines = _LINES

    @abstractmethod
    def proteins(self, stream: BinaryIO) -> Iterator[Protein]:
        """Yield the records of a file in order.

        Args:
            stream: its bytes, decompressed.
        """

    def plain_file(self) -> PlainFile | None:
        """None: only ``blocks`` can read it."""
        return None

    def blocks(self, size: int) -> Iterator[bytes]:
        """Yield the records as FASTA, in pieces of at least ``size`` bytes but for the last."""
        with self._open() as stream:
            proteins = self.proteins(io.BufferedReader(_Chunks(self._decompressed(stream, size)), size))
            first = list(islice(proteins, _SAMPLE_RECORDS))
            if first and first[0].line is not None:
                self.first_line = first[0].line
            if self._expected:
                self._check_letters((each.sequence.encode(errors="replace") for each in first), self.first_line)
            piece = bytearray()
            lines = 0
            for protein in chain(first, proteins):
                if protein.line is not None:
                    between = _LINES * (protein.line - self.first_line) - lines
                    piece += b"\n" * between
                    lines += between
                piece += _fasta(protein)
                lines += _LINES
                if len(piece) >= size:
                    yield self._counted(piece)
                    piece.clear()
            if piece:
                yield self._counted(piece)

    def _counted(self, piece: bytearray) -> bytes:
        self.newlines += piece.count(b"\n")
        return bytes(piece)


class _Chunks(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io gives nothing else
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _fasta(protein: Protein) -> bytes:
    header = _CONTROL.sub(" ", f"{protein.id} {protein.description}").strip()
    sequence = "".join(protein.sequence.split()).translate(_MARKS)
    return f">{header}\n{sequence}\n".encode(errors="replace")
