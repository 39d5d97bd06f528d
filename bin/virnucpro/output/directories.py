"""Folders that have their name only once they are whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from virnucpro.errors import UsageError


def sync(path: Path) -> None:
    """Have the system write a file or directory to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prepare_new_directory(outdir: Path) -> Path:
    """An empty directory beside ``outdir``, to be renamed to it when all is done; a killed run's leftover is cleared.

    Raises:
        UsageError: ``outdir`` is there already and holds something.
    """
    if outdir.exists() and (not outdir.is_dir() or any(outdir.iterdir())):
        raise UsageError(f"{outdir}: exists already and is not empty; remove it or name another --outdir")
    temporary = outdir.with_name(f".{outdir.name}.partial")
    remove_tree(temporary)
    temporary.mkdir(parents=True)
    return temporary


def publish_directory(temporary: Path, outdir: Path) -> None:
    """Give a finished folder its final name, once all of it has reached the disk."""
    for folder in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
        sync(folder)
    temporary.replace(outdir)
    sync(outdir.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    if path.exists():
        shutil.rmtree(path)
