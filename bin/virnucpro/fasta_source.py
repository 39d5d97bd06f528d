"""The bytes of a FASTA file, decompressed and checked: whatever is no protein FASTA ends here, with file and line."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import zstandard

from virnucpro.errors import FastaFormatError, InputMissingError
from virnucpro.fasta_text import BOM, COMMENT, LONE_CR, ZERO_BYTE

#: Bytes looked at before the first record is read, to tell what kind of file this is.
HEAD_BYTES: Final = 1 << 20
#: Letters after which a file counts as nucleotide or protein, and the fewest that allow a verdict.
NUCLEOTIDE_SAMPLE: Final = 10_000
NUCLEOTIDE_MINIMUM: Final = 20
#: Share of A, C, G, T, U and N in the sample from which a file is nucleotide; proteins have about 0.26.
NUCLEOTIDE_SHARE: Final = 0.95
#: Raw bytes per read; bounds what one step of decompression can yield.
READ_BYTES: Final = 1 << 18
#: Bytes that one record may span in the file: no protein comes near, and memory holds a few of them.
RECORD_BYTES: Final = 1 << 28

GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
WHITE_SPACE: Final = b" \t\n\r\v\f"
#: Blank lines and comments; ``#`` begins a comment before the first record only.
_PREAMBLE: Final = re.compile(rb"(?:[ \t\r\v\f]*\n|[;#][^\n]*(?:\n|\Z))*")
_LONE_CR: Final = re.compile(rb"\r(?!\n|\Z)")
_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_OTHER_FORMATS: Final = {
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"PK\x03\x04": "a zip archive",
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF file",
}
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
    modified: int
    comment_lines: int


class FastaSource:
    """One FASTA file, plain, gzip or zstd (told by content, not by name), or ``-`` for standard input.

    Args:
        path: the file.
        name: what messages and the ledger call it, if not by its path.
        refuse_nucleotide: end with an error where the first letters are nearly all ACGTUN.
    """

    def __init__(self, path: Path, *, name: str | None = None, refuse_nucleotide: bool = False) -> None:
        self.name = name or ("standard input" if str(path) == "-" else str(path))
        self.first_line = 1
        self._path = path
        self._refuse_nucleotide = refuse_nucleotide
        self.newlines = 0
        self.comment_lines = 0

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

    def plain_file(self) -> PlainFile | None:
        """Look at the file, and return where to find the records in it; None where ``blocks`` has to read it.

        Raises:
            InputMissingError, FastaFormatError: as ``blocks``, as far as the head of the file shows it.
        """
        if str(self._path) == "-":
            return None
        with self._open() as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                return None
            head = bytearray()
            while len(head) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(head))):
                head += more
        if head.startswith((GZIP_MAGIC, ZSTD_MAGIC, *_OTHER_FORMATS)):
            return None
        start = self._check_head(head)
        if start is None:
            start = facts.st_size
        line = head.count(b"\n", 0, start) + 1
        return PlainFile(self._path, self.name, start, line, facts.st_size, facts.st_mtime_ns, self.comment_lines)

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
        while len(first) < 8 and (more := stream.read(READ_BYTES)):
            first += more
        if first.startswith(GZIP_MAGIC):
            yield from self._inflate(first, stream, "gzip", lambda: zlib.decompressobj(wbits=31))
            return
        if first.startswith(ZSTD_MAGIC):
            yield from self._inflate(first, stream, "zstd", zstandard.ZstdDecompressor().decompressobj)
            return
        for magic, what in _OTHER_FORMATS.items():
            if first.startswith(magic):
                raise self._error(f"{what}, which is not read", None, "give plain FASTA, .gz or .zst")
        while first:
            yield first
            first = stream.read(read_bytes)

    def _inflate(self, raw: bytes, stream: BinaryIO | io.FileIO, kind: str, new: Callable[[], Any]) -> Iterator[bytes]:
        """Decompress frame after frame; zero bytes after the last are padding, as gzip itself holds."""
        decoder = new()
        try:
            while raw:
                out = decoder.decompress(raw)
                if out:
                    yield out
                raw = decoder.unused_data.lstrip(b"\0") if decoder.eof else b""
                if not raw:
                    raw = stream.read(READ_BYTES)
                    if decoder.eof:
                        raw = raw.lstrip(b"\0")
                if raw and decoder.eof:
                    decoder = new()
        except (zlib.error, zstandard.ZstdError) as error:
            raise self._error(f"damaged {kind} data ({error})", self._line(), "copy or download it again") from None
        if not decoder.eof:
            raise self._error(f"the {kind} file is cut short", self._line(), "copy or download it again")

    def _check_head(self, head: bytearray) -> int | None:
        """Return where the first ``>`` stands, or None where there are only blank lines and comments."""
        if head.startswith(_UTF16_BOMS):
            raise self._error("text in UTF-16", 1, "save it as plain ASCII or UTF-8")
        offset = len(BOM) if head.startswith(BOM) else 0
        preamble = _PREAMBLE.match(head, offset)
        assert preamble is not None
        self.comment_lines = sum(line.startswith((COMMENT, b"#")) for line in preamble[0].splitlines())
        start = preamble.end()
        text = bytes(head[start:])
        line = head.count(b"\n", 0, start) + 1
        if b"\0" in head:
            message, remedy = ZERO_BYTE
            raise self._error(message, head.count(b"\n", 0, head.find(b"\0")) + 1, remedy)
        first_line = text.partition(b"\n")[0]
        lone = _LONE_CR.search(head[: start + len(first_line) + 1])
        if lone:
            message, remedy = LONE_CR
            raise self._error(message, head.count(b"\n", 0, lone.start()) + 1, remedy)
        if not text.strip(WHITE_SPACE):
            if len(head) < HEAD_BYTES:
                return None
            raise self._error(f"no '>' in the first {HEAD_BYTES} bytes", None, "give protein sequences in FASTA format")
        if not text.startswith(b">"):
            what = "FASTQ" if text.startswith(b"@") else "not FASTA: the first line does not begin with '>'"
            raise self._error(what, line, "give protein sequences in FASTA format")
        if self._refuse_nucleotide:
            self._check_protein(text, line)
        return start

    def _check_protein(self, text: bytes, line: int) -> None:
        letters = b""
        for part in text.split(b"\n"):
            if part.startswith((b">", COMMENT)):
                continue
            letters += part.upper().translate(None, _NOT_LETTERS)
            if len(letters) >= NUCLEOTIDE_SAMPLE:
                break
        letters = letters[:NUCLEOTIDE_SAMPLE]
        nucleotides = sum(letters.count(base) for base in (b"A", b"C", b"G", b"T", b"U", b"N"))
        if len(letters) >= NUCLEOTIDE_MINIMUM and nucleotides >= NUCLEOTIDE_SHARE * len(letters):
            share = f"{nucleotides} of the first {len(letters)} letters are A, C, G, T, U or N"
            raise self._error(f"nucleotide sequences ({share})", line, "translate them to protein first")

    def _line(self) -> int | None:
        return self.newlines + 1 if self.newlines else None

    def _error(self, message: str, line: int | None, remedy: str) -> FastaFormatError:
        return FastaFormatError(message, file=self.name, line=line, remedy=remedy)


def _count_newlines(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))
