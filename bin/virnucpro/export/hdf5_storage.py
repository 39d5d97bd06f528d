"""Where an HDF5 file lies. HDF5 keeps what it could not write, tries again as the process ends, and dies of it: so it
is never told of an error, and whoever uses the file asks for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Hdf5Storage:
    """A file that ``h5py.File`` takes in a path's place. All that HDF5 writes can be read back from it; what comes
    after an error is only kept in memory, so ``raise_error`` has to be called often.

    Args:
        path: a new file.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x+b", buffering=0)
        self._position = self._size = 0
        self._error: BaseException | None = None
        self._unwritten: list[tuple[int, bytes]] = []

    def raise_error(self) -> None:
        """Raise what kept something from being written: OSError, or what a signal's handler raised meanwhile."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        """As of any file."""
        return self._position

    def read(self, size: int) -> bytes:
        """As of any file."""
        found = bytearray(size)
        return bytes(found[: self.readinto(found)])

    def readinto(self, buffer: Any) -> int:
        """As of any file; fewer bytes than the buffer holds only at the end."""
        wanted = memoryview(buffer).cast("B")
        begin, size = self._position, max(0, min(len(wanted), self._size - self._position))
        wanted = wanted[:size]
        wanted[:] = bytes(size)
        done = 0
        while done < size and (read := os.preadv(self._file.fileno(), [wanted[done:]], begin + done)):
            done += read
        for at, data in self._unwritten:
            first, last = max(at, begin), min(at + len(data), begin + size)
            if first < last:
                wanted[first - begin : last - begin] = data[first - at : last - at]
        self._position += size
        return size

    def write(self, data: Any) -> int:
        """All of it, whether the disk takes it or not."""
        given = memoryview(data).cast("B")
        try:
            done = 0
            while self._error is None and done < len(given):
                done += os.pwrite(self._file.fileno(), given[done:], self._position + done)
        except BaseException as error:
            self._error = error
        if self._error is not None:
            self._unwritten.append((self._position, bytes(given)))
        self._position += len(given)
        self._size = max(self._size, self._position)
        return len(given)

    def truncate(self, size: int) -> int:
        """As of any file."""
        try:
            if self._error is None:
                self._file.truncate(size)
        except BaseException as error:
            self._error = error
        self._size = size
        return size

    def flush(self) -> None:
        """Nothing: no more than the system's own memory lies between."""

    def close(self) -> None:
        """Let go of the file.

        Raises:
            OSError: the system could not write it.
        """
        self._file.close()
