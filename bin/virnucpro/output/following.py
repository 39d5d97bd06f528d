"""A file that grows, hashed and brought to its disk by threads beside whoever writes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import xxhash

from virnucpro.output.overlap import Behind

#: Bytes read at once, which stay in the processor's cache.
_CHUNK_BYTES: Final = 1 << 20
#: Bytes after which they are hashed, so that they are found in memory.
_STEP_BYTES: Final = 16 << 20
#: Bytes after which the system is asked to write what it holds: its own patience is a tenth of memory, or seconds.
_FLUSH_BYTES: Final = 128 << 20


class Following:
    """Follows a file while it is written: at its end its digest (xxh3_128) is known, and most of it is on the disk.

    Whoever writes waits where the disk is slower.

    Args:
        path: the file, which is there already.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._hash = xxhash.xxh3_128()
        self._room = memoryview(bytearray(_CHUNK_BYTES))
        self._asked = self._at = self._flushed = 0
        self._behind = Behind[int](self._advance, depth=1)
        self._flushing = Behind[int](os.fsync, depth=0)

    def advance(self, end: int) -> None:
        """Follow to a place in the file; raises OSError where the disk failed with what came before."""
        if end - self._asked >= _STEP_BYTES:
            self._asked = end
            self._behind.put(end)

    def finish(self) -> str:
        """Follow to the end of the file, which is on the disk then; returns its digest, 32 hex digits.

        Raises:
            OSError: the disk failed.
        """
        self._behind.__exit__(None)
        self._advance(None)
        self._flushing.__exit__(None)
        os.fsync(self._file.fileno())
        return self._hash.hexdigest()

    def close(self) -> None:
        """Let go of the file, followed to its end or not; harmless when closed."""
        self._behind.__exit__(InterruptedError)
        self._flushing.__exit__(InterruptedError)
        self._file.close()

    def _advance(self, end: int | None) -> None:
        while end is None or self._at < end:
            read = self._file.readinto(self._room if end is None else self._room[: end - self._at])
            if not read:
                break
            self._hash.update(self._room[:read])
            self._at += read
        if self._at - self._flushed >= _FLUSH_BYTES:
            # On a thread of its own: what is written meanwhile is hashed meanwhile.
            self._flushing.put(self._file.fileno())
            self._flushed = self._at
