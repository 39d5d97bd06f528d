"""Locks between processes: the kernel's on a file, gone with the process that holds it, however that ended."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

#: Between two looks at whether a lock is free.
POLL_SECONDS: Final = 0.05


def take(file: IO[Any] | int, *, shared: bool = False) -> bool:
    """Lock an open file until it is closed; False where another process has it, or, not ``shared``, several have.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def first_of_all(path: Path, most_seconds: float) -> Iterator[None]:
    """Enter at once and alone, or, where another process is inside, once it has left, with all others that waited.

    Enters all the same after ``most_seconds``, and at once where the file cannot be opened or has no locks.
    """
    handle = _enter(path, most_seconds)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _enter(path: Path, most_seconds: float) -> int | None:
    """The open file where this process is the first; None, after it has waited, where it is not."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return None
    try:
        if take(handle):
            return handle
        end = time.monotonic() + most_seconds
        while not take(handle, shared=True) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
    except OSError:
        pass
    os.close(handle)
    return None
