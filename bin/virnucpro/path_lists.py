"""Lists of paths that go through files and folders: a command line holds some thousand of them, and no more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virnucpro.errors import DataError, InputMissingError
from virnucpro.shards import SHARD_NAMES


@dataclass(frozen=True)
class PathList:
    """Paths in their order, and what the user calls each."""

    paths: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()


def read_path_list(path: Path) -> PathList:
    """Read a JSON list of ``{"path": ..., "name": ...}``; relative paths count from the working folder.

    Raises:
        InputMissingError: the list is not there.
        DataError: it is no such list.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return PathList(
            tuple(Path(_text(entry["path"])) for entry in entries), tuple(_text(entry["name"]) for entry in entries)
        )
    except FileNotFoundError:
        raise InputMissingError(f"{path}: no such list; check the path") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path}: not a JSON list of {{"path": ..., "name": ...}} ({error!r}); write it anew') from None


def named_paths(given: Sequence[Path], list_file: Path | None) -> PathList:
    """Return the paths of a command line and then those of a list; without a list, no names."""
    if list_file is None:
        return PathList(tuple(given))
    listed = read_path_list(list_file)
    return PathList((*given, *listed.paths), (*map(str, given), *listed.names))


def files_of(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the paths, in the place of a folder the files in it by name, but for hidden ones.

    Raises:
        InputMissingError: a folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
        if not inside:
            raise InputMissingError(f"{path}: a folder without files; name files")
        found += inside
    return tuple(found)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def shard_folders(folder: Path | None) -> tuple[Path, ...]:
    """Return the folders in ``folder`` that bear a shard's name, in the order of their names."""
    return () if folder is None else tuple(sorted(path for path in folder.glob(SHARD_NAMES) if path.is_dir()))
