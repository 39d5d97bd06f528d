"""Files and folders that a program is still making: whatever ends it, and wherever in it, none of them is left.

Ctrl-C, and a worker that is lost, come between any two instructions: also between the making of a folder and what would
remove it, and while it is removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_made: Final[set[Path]] = set()


def begin(path: Path) -> Path:
    """Take note of what is about to be made; returns it."""
    _made.add(path)
    return path


def end(path: Path) -> None:
    """What was begun has its final name, or is removed."""
    _made.discard(path)


@contextmanager
def none_left() -> Iterator[None]:
    """Where an error ends the block, what was begun in it and has no end is removed, as far as the system lets it."""
    before = set(_made)
    try:
        yield
    except BaseException:
        for path in _made - before:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            end(path)
        raise
