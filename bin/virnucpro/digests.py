"""What tells a sequence, or a file, from every other one: xxh3_128, which costs less than to copy what is hashed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Self

import xxhash

#: Bytes of a key.
KEY_BYTES: Final = 16
#: Bytes of a file hashed at once: few enough to stay in the processor's cache.
_HASHED_AT_ONCE: Final = 1 << 17


def sequence_keys(sequences: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """The key of each sequence, 16 bytes: of exactly the residues that the model sees, in upper case."""
    return map(xxhash.xxh3_128_digest, sequences)


def text_digest(text: str) -> str:
    """Digest of a text as 32 hex digits."""
    return str(xxhash.xxh3_128_hexdigest(text.encode()))


class FileDigest:
    """The digest of a file, taken in pieces while it is written or just before they are read: the disk is read once.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._hash = xxhash.xxh3_128()
        self._room = memoryview(bytearray(_HASHED_AT_ONCE))
        self._at = 0
        self._file = path.open("rb", buffering=0)

    def advance(self, end: int | None = None) -> None:
        """Hash up to a place in the file, or up to its end."""
        while end is None or self._at < end:
            wanted = _HASHED_AT_ONCE if end is None else min(_HASHED_AT_ONCE, end - self._at)
            read = self._file.readinto(self._room[:wanted])
            if not read:
                return
            self._hash.update(self._room[:read])
            self._at += read

    def hexdigest(self) -> str:
        """Of the whole file, as 32 hex digits."""
        self.advance()
        return str(self._hash.hexdigest())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def file_digest(path: Path) -> str:
    """Digest of a whole file as 32 hex digits; OSError where it cannot be read."""
    with FileDigest(path) as digest:
        return digest.hexdigest()
