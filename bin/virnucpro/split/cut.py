"""A FASTA file in blocks of whole records: as bytes, or for a plain file as stretches that a task reads itself."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from virnucpro.errors import DataError, FastaFormatError, InputMissingError
from virnucpro.fasta import record_too_long
from virnucpro.fasta_source import RECORD_BYTES, FastaSource, PlainFile

#: Bytes read at once in search of the next header.
SEARCH_BYTES: Final = 1 << 16
_BOUNDARY: Final = b"\n>"


@contextmanager
def reopened(path: Path, name: str) -> Iterator[io.FileIO]:
    """Open an input again that was there before.

    Raises:
        InputMissingError: it was deleted in the meantime.
    """
    try:
        stream = io.FileIO(path)
    except FileNotFoundError:
        raise InputMissingError(f"{name}: deleted while it was read; put it back and run again") from None
    with stream:
        yield stream


@dataclass(frozen=True)
class Span:
    """A stretch of a file; ``what`` is its name in messages."""

    path: Path
    offset: int
    size: int
    what: str

    def read(self) -> bytes:
        """Return its bytes.

        Raises:
            DataError, InputMissingError: the file has become shorter, or is gone.
        """
        with reopened(self.path, self.what) as stream:
            data = os.pread(stream.fileno(), self.size, self.offset)
            while len(data) < self.size:
                more = os.pread(stream.fileno(), self.size - len(data), self.offset + len(data))
                if not more:
                    raise DataError(f"{self.what}: changed while it was read; run again once it is complete")
                data += more
        return data


def cut_stream(source: FastaSource, size: int) -> Iterator[bytes]:
    """Yield pieces of about ``size`` bytes that begin with ``>`` and hold whole records.

    Raises:
        FastaFormatError: as ``FastaSource.blocks``, or a record is longer than any protein.
    """
    # In pieces, joined once they are cut: a record of many blocks would be copied with each.
    rest: list[bytes] = []
    gathered: list[bytes] = []
    gathered_bytes = 0
    for piece in source.blocks(size):
        gathered.append(piece)
        gathered_bytes += len(piece)
        if gathered_bytes < size:
            continue
        before = rest[-1][-1:] if rest else b""
        recent = b"".join([before, *gathered])
        gathered, gathered_bytes = [], 0
        cut = recent.rfind(_BOUNDARY) + 1
        if cut:
            yield b"".join([*rest, recent[len(before) : cut]])
            rest = [recent[cut:]]
        else:
            rest.append(recent[len(before) :])
        if sum(map(len, rest)) > RECORD_BYTES:
            line_ends = sum(each.count(b"\n") for each in rest)
            raise record_too_long(source.name, source.newlines - line_ends + 1)
    if rest or gathered:
        yield b"".join([*rest, *gathered])


def cut_file(plain: PlainFile, size: int) -> Iterator[Span]:
    """Yield the same as stretches of a file, which is read near their ends only.

    Raises:
        FastaFormatError: a record is longer than any protein.
        InputMissingError: the file is gone.
    """
    with reopened(plain.path, plain.name) as stream:
        start = plain.start
        while start < plain.size:
            stop = _next_header(stream.fileno(), plain, start, min(start + size, plain.size))
            yield Span(plain.path, start, stop - start, plain.name)
            start = stop


def _next_header(descriptor: int, plain: PlainFile, start: int, position: int) -> int:
    """Where the first header at or after ``position`` begins, or the end of the file."""
    searched = position - 1
    while searched + 1 < plain.size:
        window = os.pread(descriptor, SEARCH_BYTES, searched)
        found = window.find(_BOUNDARY)
        if found >= 0:
            return searched + found + 1
        if len(window) < len(_BOUNDARY):
            break
        searched += len(window) - 1
        if searched - position > RECORD_BYTES:
            raise _too_long(descriptor, plain, start, position)
    return plain.size


def _too_long(descriptor: int, plain: PlainFile, start: int, position: int) -> FastaFormatError:
    """The error for the last record that begins before ``position``, whose line is counted here only."""
    last = os.pread(descriptor, position - start, start).rfind(_BOUNDARY) + 1
    line, read = plain.first_line, plain.start
    while read < start + last:
        chunk = os.pread(descriptor, min(RECORD_BYTES, start + last - read), read)
        line += chunk.count(b"\n")
        read += len(chunk)
    return record_too_long(plain.name, line)
