"""Files and folders that a program is still making: whatever ends it, and wherever in it, none of them is left.

Ctrl-C, and a worker that is lost, come between any two instructions: also between the making of a folder and what would
remove it, and while it is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

#: Each with the open file that holds its lock, if it has one.
_made: Final[dict[Path, int | None]] = {}


def begin(path: Path) -> Path:
    """Take note of what is about to be made; returns it."""
    _made.setdefault(path, None)
    return path


def hold(path: Path, handle: int | None) -> None:
    """Keep the lock of what was begun until its end."""
    _made[path] = handle


def end(path: Path) -> None:
    """What was begun has its final name, or is removed."""
    handle = _made.pop(path, None)
    if handle is not None:
        os.close(handle)


def let_go() -> None:
    """In a process that was forked: what its parent has begun, and holds the locks of, is none of its own."""
    for handle in _made.values():
        if handle is not None:
            os.close(handle)
    _made.clear()


@contextmanager
def none_left() -> Iterator[None]:
    """Where an error ends the block, what was begun in it and has no end is removed, as far as the system lets it."""
    before = set(_made)
    try:
        yield
    except BaseException:
        for path in _made.keys() - before:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            end(path)
        raise
