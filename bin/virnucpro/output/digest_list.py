"""``digests.xxh128``: the digest of each file of finished results, as ``xxh128sum --check`` reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from virnucpro.errors import DataError, InputMissingError
from virnucpro.output.digests import file_digest
from virnucpro.output.files import DIGESTS_FILE, EMBEDDINGS_DIR, RESIDUES_DIR

#: Results have no folders in folders, and nothing outside.
_LINE: Final = re.compile(r"(?P<digest>[0-9a-f]{32})  (?P<name>(?:[\w-][\w.-]*/)?[\w-][\w.-]*)")


def write_digests(results: Path, written: Mapping[Path, str], expected: Mapping[str, str]) -> None:
    """Write the list of all files in a folder; arguments and errors as of ``result_digests``."""
    digests = result_digests(results, written, expected)
    lines = "".join(f"{digests[name]}  {name}\n" for name in digests)
    (results / DIGESTS_FILE).write_text(lines, encoding="ascii")


def result_digests(results: Path, written: Mapping[Path, str], expected: Mapping[str, str]) -> dict[str, str]:
    """Digests of all files in a folder by their names, which are relative to it, with slashes, and in order.

    Args:
        written: digests known from the writing.
        expected: by name, what copies of earlier files must have.

    Raises:
        DataError: a copy is another.
    """
    digests: dict[str, str] = {}
    for path in (path for path in results.rglob("*") if path.is_file() and path.name != DIGESTS_FILE):
        name = path.relative_to(results).as_posix()
        digests[name] = written[path] if path in written else file_digest(path)
        if digests[name] != expected.get(name, digests[name]):
            raise DataError(f"{name}: not what the split wrote; merge again")
    return dict(sorted(digests.items()))


def read_digests(results: Path, name: str | None = None) -> dict[str, str]:
    """Digests by name, of results that the user calls ``name`` where they lie elsewhere now.

    Raises:
        InputMissingError: there is no list.
        DataError: it is damaged.
    """
    called = f"{(name or str(results)).rstrip('/')}/{DIGESTS_FILE}"
    try:
        text = (results / DIGESTS_FILE).read_text(encoding="ascii")
    except FileNotFoundError:
        raise InputMissingError(f"{called}: not there; give the output folder of a finished run") from None
    except NotADirectoryError:
        raise InputMissingError(f"{name or results}: a file; give the output folder of a finished run") from None
    except UnicodeDecodeError:
        raise DataError(f"{called}: damaged; run again") from None
    found = [_LINE.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
    digests = {match["name"]: match["digest"] for match in found if match}
    if len(digests) != len(found) or list(digests) != sorted(digests) or not text.endswith("\n"):
        raise DataError(f"{called}: damaged, not a list of digests and names; run again")
    return digests


def listed_parts(results: Path, digests: Mapping[str, str], folder: str) -> list[Path]:
    """The parts of a folder that the list names, in the order of their rows."""
    return [results / name for name in sorted(digests) if name.startswith(f"{folder}/part-")]


def reused_parts(results: Path, name: str | None = None) -> dict[Path, str]:
    """The files of earlier results that hold vectors, in the order of their rows, with their digests.

    Only what the list names is looked at: whatever else lies in the folder is not of the run that ended there.

    Raises:
        InputMissingError, DataError: as ``read_digests``.
    """
    return _listed(results, EMBEDDINGS_DIR, name)


def reused_residues(results: Path, name: str | None = None) -> dict[Path, str]:
    """As ``reused_parts``, of the vectors of single residues."""
    return _listed(results, RESIDUES_DIR, name)


def _listed(results: Path, folder: str, name: str | None) -> dict[Path, str]:
    digests = read_digests(results, name)
    return {path: digests[f"{folder}/{path.name}"] for path in listed_parts(results, digests, folder)}
