"""gzip, bzip2, xz and zstd, told by content and read in pieces: memory stays bounded whatever a file unpacks to."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

import zstandard

#: Raw bytes per read.
READ_BYTES: Final = 1 << 18
#: Decompressed bytes after which a piece is handed on.
PIECE_BYTES: Final = 1 << 20
#: Raw bytes of zstd taken at once: its densest blocks have 4 bytes for 128 KiB, so a piece holds 32 MiB at most.
ZSTD_STEP_BYTES: Final = 1 << 10
#: Memory for what an xz or zstd file refers back to; ``xz -9`` needs 65 MiB and ``zstd --ultra -22`` 128 MiB.
WINDOW_BYTES: Final = 1 << 27
#: Bytes by which a format is told.
MAGIC_BYTES: Final = 6

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_TAIL: Final = b"\x2a\x4d\x18"
_FAULTS: Final = (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, ValueError)


class CompressedDataError(Exception):
    """A compressed file that cannot be unpacked: what is wrong, and what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class _Decoder(Protocol):
    """One frame, as ``bz2.BZ2Decompressor`` reads it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipDecoder:
    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self.needs_input = len(out) < max_length
        return out


class _ZstdDecoder:
    """Yields up to 32 MiB more than asked for: the library has no limit on what it gives for what it is given."""

    def __init__(self) -> None:
        self._inflate = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()
        self._pending = memoryview(b"")

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._pending

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data + self._pending

    def decompress(self, data: bytes, max_length: int) -> bytes:
        raw = memoryview(data) if data else self._pending
        inflate, step, pieces, size, taken = self._inflate, ZSTD_STEP_BYTES, [], 0, 0
        while taken < len(raw) and size < max_length and not inflate.eof:
            pieces.append(inflate.decompress(raw[taken : taken + step]))
            size += len(pieces[-1])
            taken += step
        self._pending = raw[taken:]
        return b"".join(pieces)


@dataclass(frozen=True)
class Compression:
    """A format that is read. ``name`` is also that of its program; ``too_large`` is how its library words a file that
    needs more memory than ``WINDOW_BYTES``, and ``large`` the program's option for it."""

    name: str
    magic: bytes
    new: Callable[[], _Decoder]
    too_large: str = ""
    large: str = ""

    def begins(self, raw: bytes | bytearray) -> bool:
        """Whether ``raw`` is the beginning of a frame, or of one that is cut short after less than its magic."""
        if self.magic == _ZSTD_MAGIC and raw[:1] and raw[0] & 0xF0 == 0x50:
            return raw[1:4] == _SKIPPABLE_TAIL[: len(raw[1:4])]
        return self.magic.startswith(bytes(raw[: len(self.magic)]))


def _new_xz() -> lzma.LZMADecompressor:
    # liblzma counts its own few hundred kB as well.
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=WINDOW_BYTES + (1 << 20))


COMPRESSIONS: Final = (
    Compression("gzip", b"\x1f\x8b", _GzipDecoder),
    Compression("bzip2", b"BZh", bz2.BZ2Decompressor),
    Compression("xz", b"\xfd7zXZ\0", _new_xz, "Memory usage limit exceeded"),
    Compression("zstd", _ZSTD_MAGIC, _ZstdDecoder, "requires too much memory", " --long=31"),
)


def compression_of(first: bytes | bytearray) -> Compression | None:
    """Return how a file that begins with ``first`` is compressed, or None where it is not, or in a way not read."""
    start = _after_skippable_frames(first)
    for each in COMPRESSIONS:
        if first.startswith(each.magic):
            return each
        if start and each.magic == _ZSTD_MAGIC and each.begins(first[start:]):
            return each
    return None


def _after_skippable_frames(first: bytes | bytearray) -> int:
    """Where the first frame begins that is none of zstd's skippable ones, which lz4 has too."""
    position = 0
    while first[position : position + 1] and first[position] & 0xF0 == 0x50:
        if first[position + 1 : position + 4] != _SKIPPABLE_TAIL:
            break
        position += 8 + int.from_bytes(first[position + 4 : position + 8], "little")
    return position


def decompress(kind: Compression, first: bytes, stream: BinaryIO | io.FileIO) -> Iterator[bytes]:
    """Yield what ``first`` and the rest of the stream unpack to, frame after frame, in pieces of bounded size.

    Zero bytes after a frame are padding, as the formats' own programs hold.

    Raises:
        CompressedDataError: damaged, cut short, followed by something else, or in need of too much memory.
    """
    decoder, raw, taken = kind.new(), first, len(first)
    start = 0
    while True:
        try:
            piece = decoder.decompress(raw, PIECE_BYTES)
        except _FAULTS as error:
            raise _fault(kind, error, start, taken) from None
        if piece:
            yield piece
        if decoder.eof:
            raw = decoder.unused_data.lstrip(b"\0")
            while len(raw) < MAGIC_BYTES and (more := stream.read(READ_BYTES)):
                raw, taken = (raw + more).lstrip(b"\0"), taken + len(more)
            if not raw:
                return
            start = taken - len(raw)
            if not kind.begins(raw):
                message = f"the {kind.name} data end, and something else follows from byte {start + 1} on"
                raise CompressedDataError(message, "cut it off, or give it as a file of its own")
            decoder = kind.new()
        elif decoder.needs_input:
            start, raw = taken, stream.read(READ_BYTES) or b""
            taken += len(raw)
            if not raw:
                message = f"the {kind.name} file is cut short: it ends after {taken} bytes, within its data"
                raise CompressedDataError(message, "copy or download it again")
        else:
            raw = b""


def _fault(kind: Compression, error: Exception, start: int, taken: int) -> CompressedDataError:
    if kind.too_large and kind.too_large in str(error):
        message = f"the {kind.name} file needs more than {WINDOW_BYTES >> 20} MiB of memory to unpack"
        return CompressedDataError(message, f"unpack it first: {kind.name} -dc{kind.large} FILE > proteins.fasta")
    place = f"between bytes {start + 1} and {taken}"
    return CompressedDataError(f"damaged {kind.name} data {place} ({error})", "copy or download it again")
