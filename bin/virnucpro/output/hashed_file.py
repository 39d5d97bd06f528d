"""A file that is hashed while it is written, and brought to its disk meanwhile."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import xxhash

from virnucpro.output.overlap import Behind

#: Bytes that are hashed and written at once, and that may wait for it: whoever writes makes the next ones meanwhile.
_PIECE_BYTES: Final = 1 << 20
_WAITING_BYTES: Final = 64 << 20
#: Bytes after which the system is asked to write what it holds: its own patience is a tenth of memory, or seconds.
_FLUSH_BYTES: Final = 128 << 20


class HashedFile:
    """What ``pyarrow.PythonFile`` writes into: a new file, whose digest (xxh3_128) is known at its end.

    It is hashed and written on a thread of its own, and goes to the disk on another, so that its end does not wait for
    all of it. Whoever writes waits where the disk is slower.

    Args:
        path: made, or emptied.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._hash = xxhash.xxh3_128()
        self._piece: list[bytes] = []
        self._piece_bytes = 0
        self._behind = Behind[list[bytes]](self._append, _WAITING_BYTES // _PIECE_BYTES, _WAITING_BYTES, _size)
        self._unflushed = 0
        self._flushing = ThreadPoolExecutor(1, "flush-behind")
        self._flush: Future[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether it takes no more."""
        return self._file.closed

    def write(self, data: bytes) -> int:
        """Append ``data``; raises OSError where the disk is full, or failed, with what came before."""
        # Only what cannot change is left for later.
        self._piece.append(data if type(data) is bytes else bytes(data))
        self._piece_bytes += len(data)
        if self._piece_bytes >= _PIECE_BYTES:
            self._hand_over()
        return len(data)

    def flush(self) -> None:
        """For pyarrow, which asks for it: ``sync`` is what brings all of it to the disk."""

    def sync(self) -> None:
        """Take no more, and wait until all of it is on the disk; raises OSError where it is not."""
        self._hand_over()
        self._behind.__exit__(None)
        self._flush_behind()
        if self._flush is not None:
            self._flush.result()

    def close(self) -> None:
        """Close it, on the disk or not; harmless when closed."""
        self._behind.__exit__(InterruptedError)
        self._flushing.shutdown()
        self._file.close()

    def hexdigest(self) -> str:
        """Of what was written: 32 hex digits."""
        return self._hash.hexdigest()

    def _hand_over(self) -> None:
        piece, self._piece, self._piece_bytes = self._piece, [], 0
        self._behind.put(piece)

    def _append(self, piece: list[bytes]) -> None:
        for data in piece:
            self._hash.update(data)
            done = 0
            while done < len(data):
                done += self._file.write(memoryview(data)[done:]) or 0
            self._unflushed += done
        if self._unflushed >= _FLUSH_BYTES:
            self._flush_behind()

    def _flush_behind(self) -> None:
        if self._flush is not None:
            self._flush.result()
        self._flush = self._flushing.submit(os.fsync, self._file.fileno())
        self._unflushed = 0


def _size(piece: list[bytes]) -> int:
    return sum(map(len, piece))
