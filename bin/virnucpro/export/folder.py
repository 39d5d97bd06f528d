"""The folder of an export: whole or not there, and replaced only where it is an export and nothing else."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from virnucpro.errors import OutputError, UsageError
from virnucpro.output.atomic import prepare_new_directory, publish_directory, remove_tree, sync

#: Names an export: how it was made, and how many files of which names it holds.
EXPORT_FILE: Final = "export.json"
#: Files that are brought to the disk one by one; where there are more, the system is asked to write all it holds.
_FILES_ONE_BY_ONE: Final = 100


@contextmanager
def new_export(outdir: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder beside ``outdir`` that takes its place at the end, or is removed where an error ends the block.

    Raises:
        UsageError: ``outdir`` holds something that is not to be replaced.
        OutputError: the block, or what comes after it, raised an OSError that names no file.
    """
    outdir = outdir.resolve()
    if outdir == outdir.parent:
        raise UsageError(f"{outdir}: the root of the file system; name another --outdir")
    old = outdir.with_name(f".{outdir.name}.old")
    if old.exists() and not outdir.exists():
        old.replace(outdir)
    full = outdir.is_dir() and any(outdir.iterdir())
    if full and not overwrite:
        remedy = "name another --outdir, or replace an earlier export with --overwrite"
        raise UsageError(f"{outdir}: exists already and is not empty; {remedy}")
    if full:
        _check_replaceable(outdir)
    temporary = prepare_new_directory(outdir, replaced=full)
    try:
        yield temporary
        _sync_files(temporary)
        if full:
            _replace(temporary, outdir, old)
        else:
            publish_directory(temporary, outdir)
    except BaseException as error:
        remove_tree(temporary)
        if isinstance(error, OSError) and error.filename is None:
            raise OutputError(f"{outdir}: cannot be written ({error}); check free space and permissions") from error
        raise


def describe_export(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``export.json`` beside what was exported."""
    files = Counter(_pattern(entry.name) for entry in os.scandir(folder))
    text = json.dumps({**facts, "files": {**files, EXPORT_FILE: 1}}, indent=4, ensure_ascii=False)
    (folder / EXPORT_FILE).write_text(text + "\n", encoding="utf-8")


def _pattern(name: str) -> str:
    """The name; those of single proteins' files under one."""
    return "*.pt" if name.endswith(".pt") else name


def _check_replaceable(outdir: Path) -> None:
    """Raise UsageError where a folder is no export, or holds what the export did not leave there."""
    remedy = "remove it or name another --outdir"
    try:
        expected = dict(json.loads((outdir / EXPORT_FILE).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, LookupError, TypeError):
        raise UsageError(f"{outdir}: not an export, as it has no {EXPORT_FILE}; {remedy}") from None
    found: Counter[str] = Counter()
    for entry in os.scandir(outdir):
        pattern = next((each for each in expected if fnmatchcase(entry.name, each)), "")
        if not pattern or not entry.is_file(follow_symlinks=False):
            raise UsageError(f"{outdir}: {entry.name} in it is not of the export; {remedy}")
        found[pattern] += 1
        if found[pattern] > expected[pattern]:
            raise UsageError(f"{outdir}: more files {pattern} in it than were exported; {remedy}")


def _sync_files(folder: Path) -> None:
    files = [entry.path for entry, _ in zip(os.scandir(folder), range(_FILES_ONE_BY_ONE + 1), strict=False)]
    if len(files) > _FILES_ONE_BY_ONE:
        os.sync()
        return
    for path in files:
        sync(Path(path))


def _replace(temporary: Path, outdir: Path, old: Path) -> None:
    remove_tree(old)
    outdir.replace(old)
    try:
        publish_directory(temporary, outdir)
    except BaseException:
        old.replace(outdir)
        raise
    remove_tree(old)
