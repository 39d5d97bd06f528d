"""A file that is hashed while it is written, and brought to its disk meanwhile."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import xxhash

#: Bytes after which the system is asked to write what it holds: its own patience is a tenth of memory, or seconds.
_FLUSH_BYTES: Final = 128 << 20


class HashedFile:
    """What ``pyarrow.PythonFile`` writes into: a new file, whose digest (xxh3_128) is known at its end.

    A large file goes to the disk on a thread while more is written, so that its end does not wait for all of it. Its
    writer waits where the disk is slower than it.

    Args:
        path: made, or emptied.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._hash = xxhash.xxh3_128()
        self._written = 0
        self._flushed_to = 0
        self._thread: ThreadPoolExecutor | None = None
        self._flush: Future[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether it takes no more."""
        return self._file.closed

    def write(self, data: bytes) -> int:
        """Append all of ``data``; raises OSError where the disk is full, or failed with what came before."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += self._file.write(view[done:]) or 0
        self._hash.update(view)
        self._written += done
        if self._written - self._flushed_to >= _FLUSH_BYTES:
            self._flush_behind()
        return done

    def flush(self) -> None:
        """Nothing waits here."""

    def sync(self) -> None:
        """Wait until all of it is on the disk; raises OSError where it is not."""
        if self._flush is not None:
            self._flush.result()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close it, on the disk or not; harmless when closed."""
        if self._thread is not None:
            self._thread.shutdown()
        self._file.close()

    def hexdigest(self) -> str:
        """Of what was written: 32 hex digits."""
        return self._hash.hexdigest()

    def _flush_behind(self) -> None:
        if self._flush is not None:
            self._flush.result()
        self._thread = self._thread or ThreadPoolExecutor(1, "flush-behind")
        self._flush = self._thread.submit(os.fsync, self._file.fileno())
        self._flushed_to = self._written
