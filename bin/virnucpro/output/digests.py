"""Digests (xxh3_128) of what one process hands to the next, so that no byte changes on the way unseen."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from virnucpro.errors import DataError

#: Few enough to stay in the processor's cache.
_CHUNK_BYTES: Final = 1 << 17


class ContentDigest:
    """Of rows in their order, whatever the pieces in which they come: each column has a digest of its own.

    Args:
        beside: what else the file says, its metadata.
    """

    def __init__(self, beside: bytes = b"") -> None:
        self._beside = beside
        self._columns: list[Any] = []

    def add(self, *columns: npt.NDArray[Any]) -> None:
        """Add rows: for each column, always in the same order, an array whose first axis is theirs."""
        self._columns = self._columns or [xxhash.xxh3_128() for _ in columns]
        for digest, values in zip(self._columns, columns, strict=True):
            digest.update(np.ascontiguousarray(values).data)

    def hexdigest(self) -> str:
        """32 hex digits."""
        return xxhash.xxh3_128_hexdigest(b"".join(digest.digest() for digest in self._columns) + self._beside)


def file_digest(path: Path) -> str:
    """Of a file's bytes: 32 hex digits."""
    digest, room = xxhash.xxh3_128(), memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(room):
            digest.update(room[:read])
    return digest.hexdigest()


def file_digests(paths: Iterable[Path]) -> dict[str, str]:
    """Name -> digest of each file."""
    return {path.name: file_digest(path) for path in paths}


def check_file(path: Path, digest: str | None, remedy: str) -> None:
    """Hold a file to the digest that its maker gave it.

    Raises:
        DataError: it is missing, or its bytes are not those that were written.
    """
    try:
        found = file_digest(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; {remedy}") from error
    if found != digest:
        raise DataError(f"{path}: not as it was written, a byte was changed or the file replaced; {remedy}")
