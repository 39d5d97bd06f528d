"""What the files of an input are known by wherever they lie, for the record of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virnucpro.output.digests import file_digest
from virnucpro.output.records import Record


@dataclass(frozen=True, kw_only=True)
class InputFile(Record):
    """A file of the input under the name that it was given; size and digest (xxh3_128) are unknown of a pipe.

    They are those of its bytes as they stand there, compressed or not.
    """

    name: str
    size: int | None
    digest: str | None


def describe_inputs(paths: Sequence[Path], names: Sequence[str]) -> list[InputFile]:
    """The files in their order."""
    return [_described(path, name) for path, name in zip(paths, names, strict=True)]


def _described(path: Path, name: str) -> InputFile:
    if str(path) == "-" or not path.is_file():
        return InputFile(name=name, size=None, digest=None)
    return InputFile(name=name, size=path.stat().st_size, digest=file_digest(path))
