"""Folders and files that have their name only once they are whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro import unfinished
from virnucpro.errors import UsageError
from virnucpro.output.following import Following

#: Bytes written at once where a system cannot reserve them.
_RESERVED_AT_ONCE: Final = 1 << 22


def sync(path: Path) -> None:
    """Have the system write a file or directory to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reserve(file: BinaryIO, size: int) -> None:
    """Give an empty file ``size`` bytes of the disk now: one that fills later would kill who has mapped the file.

    Raises:
        OSError: there are not so many.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = bytes(min(size, _RESERVED_AT_ONCE))
    for start in range(0, size, _RESERVED_AT_ONCE):
        file.write(zeros[: size - start])
    file.flush()


def refuse_full(outdir: Path) -> None:
    """Raise UsageError where a folder to be made is there already and holds something."""
    if outdir.exists() and (not outdir.is_dir() or any(outdir.iterdir())):
        raise UsageError(f"{outdir}: exists already and is not empty; remove it or name another --outdir")


def prepare_new_directory(outdir: Path, *, replaced: bool = False) -> Path:
    """An empty directory beside ``outdir``, to be renamed to it when all is done; a killed run's leftover is cleared.

    Raises:
        UsageError: ``outdir`` is there already and holds something, and is not to be ``replaced``.
    """
    if not replaced:
        refuse_full(outdir)
    temporary = outdir.with_name(f".{outdir.name}.partial")
    remove_tree(temporary)
    unfinished.begin(temporary)
    temporary.mkdir(parents=True)
    return temporary


def publish_directory(temporary: Path, outdir: Path) -> None:
    """Give a finished folder its final name, once all of it has reached the disk."""
    for folder in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
        sync(folder)
    temporary.replace(outdir)
    unfinished.end(temporary)
    sync(outdir.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    if path.exists():
        shutil.rmtree(path)
    unfinished.end(path)


def link_or_copy(source: Path, target: Path) -> bool:
    """Give a finished file another name; returns whether both are one file, as they are not on different disks."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        # Also where the file system has no links, or links no file of another user. What is wrong else, copying tells.
        shutil.copyfile(source, target)
        return False
    return True


class PartialParquet:
    """Writes ``path`` under a temporary name beside it; ``digest`` is that of the file once it is closed.

    Args:
        path: the finished file.
        schema: its columns.
        storage: options of ``pyarrow.parquet.ParquetWriter``.
    """

    def __init__(self, path: Path, schema: pa.Schema, **storage: Any) -> None:
        self._path = path
        self._temporary = unfinished.begin(path.with_name(f".{path.name}.partial"))
        self._sink = pa.OSFile(str(self._temporary), "wb")
        self._following = Following(self._temporary)
        self._writer: pq.ParquetWriter | None = pq.ParquetWriter(self._sink, schema, **storage)
        self.digest = ""

    def __enter__(self) -> PartialParquet:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @property
    def closed(self) -> bool:
        """Whether the file is finished or dropped."""
        return self._writer is None

    def write(self, table: pa.Table) -> None:
        """Append a row group.

        Raises:
            ValueError: the file is closed.
        """
        if self._writer is None:
            raise ValueError(f"{self._path}: closed")
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self._following.advance(self._sink.tell())

    def close(self) -> None:
        """Flush to disk and give the file its name; harmless when closed."""
        if self._writer is None:
            return
        self._writer.close()
        self._sink.close()
        self.digest = self._following.finish()
        self._following.close()
        self._writer = None
        self._temporary.replace(self._path)
        unfinished.end(self._temporary)

    def abort(self) -> None:
        """Drop the unfinished file; harmless when closed."""
        if self._writer is None:
            return
        try:
            self._writer.close()
        finally:
            # A writer that cannot be closed, for lack of space, would keep the file open, and the disk with it.
            self._sink.close()
            self._following.close()
            self._writer = None
            self._temporary.unlink(missing_ok=True)
            unfinished.end(self._temporary)
