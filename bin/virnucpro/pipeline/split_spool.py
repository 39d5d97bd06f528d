"""What a split keeps on disk between its passes: one file for each column, and the blocks they are made of.

Numbers stand in ordinal order in one file per column. Sequences (normalised, truncated, end to end) and headers (an
Arrow stream for each block) stand where the process that parsed the block put them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

EMBEDDED, DUPLICATE, REUSED, REJECTED = range(4)

#: Keys are two big-endian 64-bit words, the more significant first.
KEY_TYPE: Final = np.dtype([("high", ">u8"), ("low", ">u8")])
COLUMN_TYPES: Final = {
    "keys": KEY_TYPE,
    "lengths": np.dtype(np.int32),
    "unique": np.dtype(np.int64),
    "status": np.dtype(np.uint8),
    "reuse_source": np.dtype(np.int32),
    "reuse_row": np.dtype(np.int64),
}


@dataclass(frozen=True)
class Extent:
    """A stretch of a file in the spool."""

    file: str
    offset: int
    size: int


@dataclass(frozen=True)
class Block:
    """Records that were parsed together. ``first_unique`` is known once they are deduplicated."""

    first_ordinal: int
    records: int
    file_index: int
    sequences: Extent
    headers: Extent
    first_unique: int = 0


@dataclass
class Spool:
    """A folder with the columns and the blocks; ``residue_limit`` cuts sequences, None leaves them whole."""

    directory: Path
    residue_limit: int | None
    files: tuple[str, ...]
    blocks: list[Block] = field(default_factory=list)

    @property
    def records(self) -> int:
        return self.blocks[-1].first_ordinal + self.blocks[-1].records if self.blocks else 0

    def path(self, column: str) -> Path:
        return self.directory / f"{column}.bin"

    def read(self, column: str, first: int, count: int) -> npt.NDArray[Any]:
        """Values ``first`` to ``first + count`` of a column."""
        kind = COLUMN_TYPES[column]
        return np.fromfile(self.path(column), kind, count, offset=first * kind.itemsize)

    def has(self, column: str) -> bool:
        return self.path(column).exists()

    def kept_lengths(self, block: Block) -> npt.NDArray[np.int64]:
        """Residues of each record of a block that are embedded: truncated, 0 where it is rejected."""
        lengths = self.read("lengths", block.first_ordinal, block.records).astype(np.int64)
        return np.clip(lengths, 0, self.residue_limit)

    def embedded_lengths(self) -> Iterator[npt.NDArray[np.int64]]:
        """Residues of the sequences to embed, in the order of their unique index, block by block."""
        for block in self.blocks:
            status = self.read("status", block.first_ordinal, block.records)
            yield self.kept_lengths(block)[status == EMBEDDED]

    def load(self, extent: Extent) -> bytes:
        with (self.directory / extent.file).open("rb") as stream:
            stream.seek(extent.offset)
            return stream.read(extent.size)

    def section(self, first_unique: int, count: int) -> Spool:
        """The part of this spool that holds ``count`` sequences to embed from ``first_unique`` on."""
        starts = [block.first_unique for block in self.blocks]
        first = max(int(np.searchsorted(starts, first_unique, side="right")) - 1, 0)
        stop = int(np.searchsorted(starts, first_unique + count, side="left"))
        return replace(self, blocks=self.blocks[first:stop])
