"""The bytes of a FASTA file, decompressed and checked: whatever is no protein FASTA ends here, with file and line."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

import numpy as np

from virnucpro.compression import MAGIC_BYTES, READ_BYTES, CompressedDataError, Compression, compression_of, decompress
from virnucpro.errors import FastaFormatError, InputMissingError
from virnucpro.fasta_text import BOM, COMMENT, LONE_CR, ZERO_BYTE
from virnucpro.file_formats import FileFormat, recognise_binary, recognise_text

#: Bytes looked at before the first record is read, to tell what kind of file this is.
HEAD_BYTES: Final = 1 << 20
#: Letters after which a file counts as nucleotide or protein, and the fewest that allow a verdict.
NUCLEOTIDE_SAMPLE: Final = 10_000
NUCLEOTIDE_MINIMUM: Final = 20
#: Share of A, C, G, T, U and N in the sample from which a file is nucleotide; proteins have about 0.26.
NUCLEOTIDE_SHARE: Final = 0.95
#: Letters that are no codes of nucleotides, and a third of most proteins: one of them tells a protein.
NO_NUCLEOTIDES: Final = b"EFILPQ"
#: Share of these from which what should be contigs is protein; a third of most proteins, and a slip in a contig.
PROTEIN_SHARE: Final = 0.05
#: Bytes that one record may span in the file: no protein comes near, and memory holds a few of them.
RECORD_BYTES: Final = 1 << 28

WHITE_SPACE: Final = b" \t\n\r\v\f"
#: Blank lines and comments; ``#`` begins a comment before the first record only.
_PREAMBLE: Final = re.compile(rb"(?:[ \t\r\v\f]*\n|[;#][^\n]*(?:\n|\Z))*")
_LONE_CR: Final = re.compile(rb"\r(?!\n|\Z)")
_NO_HEADER: Final = ("not FASTA: the first line does not begin with '>'", "give protein sequences in FASTA format")
_INDENTED: Final = (
    "not FASTA: blanks before the first '>'",
    "remove them: sed 's/^[[:blank:]]*>/>/' FILE > proteins.fasta",
)
_NOT_LETTERS: Final = bytes(byte for byte in range(256) if not chr(byte).isascii() or not chr(byte).isalpha())


@dataclass(frozen=True)
class PlainFile:
    """An uncompressed FASTA file: where its first ``>`` stands (its size, if nowhere), on which line, after how many
    comment lines."""

    path: Path
    name: str
    start: int
    first_line: int
    size: int
    comment_lines: int


class FastaSource:
    """One FASTA file, plain, gzip, bzip2, xz or zstd (told by content, not by name), or ``-`` for standard input.

    Args:
        path: the file.
        name: what messages and the ledger call it, if not by its path.
        expected: "protein" ends with an error where the first letters are nearly all ACGTUN and none of them EFILPQ,
            "nucleotide" where a twentieth of them is EFILPQ; None takes both.
    """

    def __init__(self, path: Path, *, name: str | None = None, expected: str | None = None) -> None:
        self.name = name or ("standard input" if str(path) == "-" else str(path))
        self.first_line = 1
        self._path = path
        self._expected = expected
        self.newlines = 0
        self.comment_lines = 0
        self._compression: Compression | None = None

    #: Lines of ``blocks`` for each line of the file, or each record of one without lines; None where they are its own.
    record_lines: ClassVar[int | None] = None
    #: What is said of a file without records.
    nothing: ClassVar[str] = "empty, no sequence in it"

    def blocks(self, size: int) -> Iterator[bytes]:
        """Yield the decompressed bytes from the first ``>`` on, in pieces of at most ``size``.

        ``first_line`` holds the line of that ``>`` once the first piece is out, ``comment_lines`` the comments before
        it, ``newlines`` the line ends up to the end of the latest piece. A file with nothing but blank lines and
        comments yields nothing.

        Raises:
            InputMissingError: the file is not there or cannot be opened.
            FastaFormatError: not FASTA, truncated, corrupt, binary, or nucleotide where that is refused.
        """
        with self._open() as stream:
            chunks = self._decompressed(stream, max(size, READ_BYTES))
            head = bytearray()
            while len(head) < HEAD_BYTES and (chunk := next(chunks, None)) is not None:
                head += chunk
                self.newlines += _count_newlines(chunk)
            start = self._check_head(head[:HEAD_BYTES])
            if start is None:
                return
            self.newlines = head.count(b"\n", 0, start)
            self.first_line = self.newlines + 1
            for chunk in chain((bytes(head[start:]),), chunks):
                for i in range(0, len(chunk), size):
                    piece = chunk[i : i + size]
                    self.newlines += _count_newlines(piece)
                    yield piece

    def head(self) -> bytes:
        """The first decompressed bytes of a file that can be opened again, at most ``HEAD_BYTES``; few of FASTA.

        Raises:
            InputMissingError: as ``blocks``.
        """
        if not self.can_be_read_again():
            return b""
        with self._open() as stream:
            first = stream.read(MAGIC_BYTES) or b""
            kind = compression_of(first)
            if first.startswith(b">"):
                return first
            stream.seek(0)
            if kind is None:
                return stream.read(HEAD_BYTES) or b""
            head = bytearray()
            with suppress(CompressedDataError):
                for piece in decompress(kind, stream.read(READ_BYTES) or b"", stream):
                    head += piece
                    if head.startswith(b">") or len(head) >= HEAD_BYTES:
                        break
            return bytes(head[:HEAD_BYTES])

    def plain_file(self) -> PlainFile | None:
        """Look at the file, and return where to find the records in it; None where ``blocks`` has to read it.

        Raises:
            InputMissingError, FastaFormatError: as ``blocks``, as far as the head of the file shows it.
        """
        if not self.can_be_read_again():
            return None
        with self._open() as stream:
            size = os.fstat(stream.fileno()).st_size
            head = bytearray()
            while len(head) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(head))):
                head += more
        if compression_of(head) is not None:
            return None
        start = self._check_head(head)
        if start is None:
            start = size
        line = head.count(b"\n", 0, start) + 1
        return PlainFile(self._path, self.name, start, line, size, self.comment_lines)

    def can_be_read_again(self) -> bool:
        """Not a pipe, which must be opened once only: what is in it is lost where its reader closes it."""
        if str(self._path) == "-":
            return False
        try:
            return stat.S_ISREG(self._path.stat().st_mode)
        except OSError:  # told by who opens it
            return True

    @contextmanager
    def _open(self) -> Iterator[BinaryIO | io.FileIO]:
        if str(self._path) == "-":
            yield sys.stdin.buffer
            return
        try:
            stream = io.FileIO(self._path)
        except FileNotFoundError:
            raise InputMissingError(f"{self.name}: no such file; check the path given to --input") from None
        except IsADirectoryError:
            raise InputMissingError(f"{self.name}: is a folder; name the FASTA files in it, or use a glob") from None
        except PermissionError:
            raise InputMissingError(f"{self.name}: cannot be opened: permission denied; make it readable") from None
        with stream:
            yield stream

    def _decompressed(self, stream: BinaryIO | io.FileIO, read_bytes: int) -> Iterator[bytes]:
        first = b""
        while len(first) < MAGIC_BYTES and (more := stream.read(READ_BYTES)):
            first += more
        self._compression = compression_of(first)
        if self._compression is None:
            while first:
                yield first
                first = stream.read(read_bytes)
            return
        try:
            yield from decompress(self._compression, first, stream)
        except CompressedDataError as error:
            raise self._error(error.message, self._line(), error.remedy) from None

    def _check_head(self, head: bytearray) -> int | None:
        """Return where the first ``>`` stands, or None where there are only blank lines and comments."""
        self._refuse(recognise_binary(head), None)
        if self._compression is not None and (again := compression_of(head)) is not None:
            message = f"compressed twice, {again.name} inside {self._compression.name}"
            raise self._error(message, None, f"unpack it once: {self._compression.name} -dc FILE > once.{again.name}")
        offset = len(BOM) if head.startswith(BOM) else 0
        preamble = _PREAMBLE.match(head, offset)
        assert preamble is not None
        self.comment_lines = sum(line.startswith((COMMENT, b"#")) for line in preamble[0].splitlines())
        start = preamble.end()
        text = bytes(head[start:])
        if b"\0" in head:
            message, remedy = ZERO_BYTE
            raise self._error(message, head.count(b"\n", 0, head.find(b"\0")) + 1, remedy)
        first_line = text.partition(b"\n")[0]
        lone = _LONE_CR.search(head[: start + len(first_line) + 1])
        if lone:
            message, remedy = LONE_CR
            raise self._error(message, head.count(b"\n", 0, lone.start()) + 1, remedy)
        visible = bytes(head[offset:]).lstrip(WHITE_SPACE)
        found, place = recognise_text(visible)
        self._refuse(found, head.count(b"\n", 0, len(head) - len(visible) + place) + 1)
        if not text.strip(WHITE_SPACE):
            if len(head) < HEAD_BYTES:
                return None
            raise self._error(f"no '>' in the first {HEAD_BYTES} bytes", None, "give protein sequences in FASTA format")
        line = head.count(b"\n", 0, start) + 1
        if not text.startswith(b">"):
            indented = text.lstrip(b" \t").startswith(b">")
            message, remedy = _INDENTED if indented else _NO_HEADER
            raise self._error(message, line, remedy)
        self._check_letters((part for part in text.split(b"\n") if not part.startswith((b">", COMMENT))), line)
        return start

    def _refuse(self, found: FileFormat | None, line: int | None) -> None:
        if found is None:
            return
        inside, remedy = "", found.remedy
        if self._compression is not None:
            inside = f" inside {self._compression.name}"
            if "FILE" in remedy and "tar -xf" not in remedy:
                remedy = f"unpack it first ({self._compression.name} -dc), then {remedy}"
        raise self._error(f"{found.what}{inside}, not FASTA", line, remedy)

    def _check_letters(self, lines: Iterable[bytes], line: int) -> None:
        if self._expected == "protein" and (share := nucleotide_share(lines)):
            remedy = "give --translate genes or --translate six_frame, or --alphabet protein if that is what they are"
            raise self._error(f"nucleotide sequences ({share})", line, remedy)
        if self._expected == "nucleotide" and (share := protein_share(lines)):
            raise self._error(f"protein sequences ({share})", line, "leave --translate out")

    def _line(self) -> int | None:
        return self.newlines + 1 if self.newlines else None

    def _error(self, message: str, line: int | None, remedy: str) -> FastaFormatError:
        return FastaFormatError(message, file=self.name, line=line, remedy=remedy)


def nucleotide_share(lines: Iterable[bytes]) -> str | None:
    """What makes the first letters of sequences those of nucleotides, in words; None of proteins."""
    letters = _first_letters(lines)
    if len(letters) < NUCLEOTIDE_MINIMUM or set(letters) & set(NO_NUCLEOTIDES):
        return None
    nucleotides = len(letters) - len(letters.translate(None, b"ACGTUN"))
    if nucleotides < NUCLEOTIDE_SHARE * len(letters):
        return None
    return f"{nucleotides} of the first {len(letters)} letters are A, C, G, T, U or N"


def protein_share(lines: Iterable[bytes]) -> str | None:
    """What makes the first letters of sequences those of proteins, in words; None of nucleotides."""
    letters = _first_letters(lines)
    residues = len(letters) - len(letters.translate(None, NO_NUCLEOTIDES))
    if residues <= PROTEIN_SHARE * len(letters):
        return None
    return f"{residues} of the first {len(letters)} letters are E, F, I, L, P or Q"


def _first_letters(lines: Iterable[bytes]) -> bytes:
    letters = b""
    for line in lines:
        letters += line.upper().translate(None, _NOT_LETTERS)
        if len(letters) >= NUCLEOTIDE_SAMPLE:
            break
    return letters[:NUCLEOTIDE_SAMPLE]


def _count_newlines(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))
