"""Folders and files that have their name only once they are whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro import locks, unfinished
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
    """Raise UsageError where a folder to be made is there already and holds something, or cannot be replaced."""
    if outdir.exists() and (not outdir.is_dir() or any(outdir.iterdir())):
        raise UsageError(f"{outdir}: exists already and is not empty; remove it or name another --outdir")
    _refuse_fixed(outdir)


def _refuse_fixed(outdir: Path) -> None:
    """Raise UsageError for a folder whose place no other can take at the end, when all is done."""
    if outdir.exists():
        mounted = os.path.ismount(outdir)
        if mounted or outdir.samefile(os.curdir):
            what = "a mount point" if mounted else "the current folder"
            raise UsageError(f"{outdir}: {what}, whose place finished results cannot take; name a folder in it")


def prepare_new_directory(outdir: Path, *, replaced: bool = False) -> Path:
    """An empty directory beside ``outdir``, to be renamed to it when all is done; a killed run's leftover is cleared.

    Raises:
        UsageError: ``outdir`` is there already and holds something, and is not to be ``replaced``; or another program
            is making it.
    """
    (_refuse_fixed if replaced else refuse_full)(outdir)
    # Where a link leads: a name is given to a folder beside, and no link can be replaced by one.
    final = outdir.resolve()
    return make_directory(final.with_name(f".{final.name}.partial"), outdir)


def make_directory(temporary: Path, outdir: Path) -> Path:
    """An empty directory in which ``outdir`` is made, locked until its end; a killed run's leftover is cleared.

    Raises:
        UsageError: another program is making ``outdir``.
    """
    if temporary.exists():
        handle = _locked(temporary, outdir)
        remove_tree(temporary)
        if handle is not None:
            os.close(handle)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    unfinished.begin(temporary)
    try:
        temporary.mkdir()
    except FileExistsError:
        unfinished.end(temporary)
        raise _at_work(outdir) from None
    _hold(temporary, outdir)
    return temporary


def _hold(temporary: Path, made: Path, flags: int = os.O_RDONLY) -> None:
    """Keep what was begun locked until its end; where another program has it, it is left alone."""
    try:
        unfinished.hold(temporary, _locked(temporary, made, flags))
    except UsageError:
        unfinished.end(temporary)
        raise


def _locked(temporary: Path, made: Path, flags: int = os.O_RDONLY) -> int | None:
    """Lock what ``made`` has as its name while it is made; None where the file system has no locks.

    Raises:
        UsageError: another program has the lock, or had it and is done.
    """
    try:
        handle = os.open(temporary, flags, 0o666)
    except FileNotFoundError:
        raise _at_work(made) from None
    try:
        mine = locks.take(handle)
    except OSError:
        os.close(handle)
        return None
    if mine and temporary.exists() and os.path.samestat(os.fstat(handle), temporary.stat()):
        return handle
    os.close(handle)
    raise _at_work(made)


def _at_work(made: Path) -> UsageError:
    return UsageError(f"{made}: another program is writing it; wait until it is done, or name another --outdir")


def publish_directory(temporary: Path, outdir: Path) -> None:
    """Give a finished folder, whose files have reached the disk, its final name."""
    for folder in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
        sync(folder)
    final = outdir.resolve()
    temporary.replace(final)
    unfinished.end(temporary)
    sync(final.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    try:
        if path.exists():
            shutil.rmtree(path)
    finally:
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

    Raises:
        UsageError: another program is writing the file.
    """

    def __init__(self, path: Path, schema: pa.Schema, **storage: Any) -> None:
        self._path = path
        self._temporary = unfinished.begin(path.with_name(f".{path.name}.partial"))
        _hold(self._temporary, path, os.O_RDWR | os.O_CREAT)
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
