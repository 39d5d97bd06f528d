"""Lists of paths that go through files and folders: a command line holds some thousand of them, and no more."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from virnucpro.config import SplitConfig
from virnucpro.errors import DataError, InputMissingError
from virnucpro.shards import SHARD_NAMES

Split = TypeVar("Split", bound=SplitConfig)

_SHEET: Final = "give a table with the columns sample and file, commas, semicolons or tabs between its cells"


@dataclass(frozen=True)
class PathList:
    """Paths in their order, and what the user calls each; their samples, where these are known."""

    paths: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()


def read_path_list(path: Path) -> PathList:
    """Read a JSON list of ``{"path": ..., "name": ...}``, each perhaps with a ``sample``.

    Relative paths count from the working folder.

    Raises:
        InputMissingError: the list is not there.
        DataError: it is no such list.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return PathList(
            tuple(Path(_text(entry["path"])) for entry in entries),
            tuple(_text(entry["name"]) for entry in entries),
            tuple(_text(entry["sample"]) for entry in entries if "sample" in entry),
        )
    except FileNotFoundError:
        raise InputMissingError(f"{path}: no such list; check the path") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f'{path}: not a JSON list of {{"path": ..., "name": ...}} ({error!r}); write it anew') from None


def named_paths(given: Sequence[Path], list_file: Path | None) -> PathList:
    """Return the paths of a command line and then those of a list; without a list, no names."""
    if list_file is None:
        return PathList(tuple(given))
    listed = read_path_list(list_file)
    return PathList((*given, *listed.paths), (*map(str, given), *listed.names), listed.samples)


def read_sample_sheet(path: Path) -> PathList:
    """Read a table with the columns ``sample`` and ``file``, as ``sheet_rows``; a folder means its files.

    Raises:
        InputMissingError: the sheet is not there, or a folder holds no file.
        DataError: it is no such table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputMissingError(f"{path}: no such sample sheet; check the path") from None
    except IsADirectoryError:
        raise InputMissingError(f"{path}: a folder, not a sample sheet; {_SHEET}") from None
    except ValueError:
        raise DataError(f"{path}: not a sample sheet in UTF-8; {_SHEET}, saved as plain text in UTF-8") from None
    if "\0" in text:
        raise DataError(f"{path}: not a sample sheet (a zero byte); {_SHEET}")
    if any(line.count('"') % 2 for line in text.split("\n")):
        raise DataError(f"{path}: a line that ends within quotes; {_SHEET}")
    pairs = [(row.get("sample"), row.get("file")) for row in sheet_rows(text, path)]
    found = [(file, sample) for sample, name in pairs if sample and name for file in files_of([Path(name)])]
    if not found or not all(sample and name for sample, name in pairs):
        raise DataError(f"{path}: a row without sample or file, or no row; {_SHEET}")
    files, samples = zip(*found, strict=True)
    return PathList(files, tuple(map(str, files)), samples)


def sheet_rows(text: str, path: Path) -> list[dict[str, str]]:
    """The rows of a table by their columns; tabs, commas or semicolons between cells, and blanks around them ignored.

    Raises:
        DataError: a column is missing, or a row has more cells than the header.
    """
    header = text.lstrip().partition("\n")[0]
    delimiter = next((each for each in "\t,;" if each in header), ",")
    try:
        given = (line for line in io.StringIO(text) if line.strip())
        rows = csv.reader(given, delimiter=delimiter, skipinitialspace=True)
        lines = [[cell.strip() for cell in row] for row in rows]
    except csv.Error as error:
        raise DataError(f"{path}: not a sample sheet ({error}); {_SHEET}") from None
    columns = lines[0] if lines else []
    if missing := [name for name in ("sample", "file") if lines and name not in columns]:
        raise DataError(f"{path}: no column {' and no column '.join(missing)} in its first line; {_SHEET}")
    if any(cell for line in lines for cell in line[len(columns) :]):
        raise DataError(f"{path}: a row with more cells than the header; put quotes around a name with commas in it")
    return [dict(zip(columns, line, strict=False)) for line in lines[1:]]


def with_files(config: Split) -> Split:
    """Return a configuration with the files that its sample sheet and its folders stand for.

    Raises:
        InputMissingError, DataError: as ``read_sample_sheet`` and ``files_of``.
    """
    if config.names:
        return config
    if config.sample_sheet is None:
        return replace(config, inputs=files_of(config.inputs))
    sheet = read_sample_sheet(config.sample_sheet)
    return replace(config, inputs=sheet.paths, samples=sheet.samples, sample_sheet=None)


def files_of(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the paths, in the place of a folder the files in it by name, but for hidden ones.

    A link to nothing is one too: who opens it says so, and no file is left out without a word.

    Raises:
        InputMissingError: a folder holds none, or a pipe or device, which would be waited for.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if not each.is_dir() and not each.name.startswith("."))
        if not inside:
            raise InputMissingError(f"{path}: a folder without files; name files")
        if special := next((each for each in inside if each != path and each.exists() and not each.is_file()), None):
            raise InputMissingError(f"{special}: a pipe or device in a folder; write it into a file, or name it itself")
        found += inside
    return tuple(found)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def shard_folders(folder: Path | None) -> tuple[Path, ...]:
    """Return the folders in ``folder`` that bear a shard's name, in the order of their names."""
    return () if folder is None else tuple(sorted(path for path in folder.glob(SHARD_NAMES) if path.is_dir()))
