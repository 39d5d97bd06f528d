"""What a split keeps on disk between its passes: one file for each column, and the blocks they are made of.

Numbers stand in one file per column, in the order of the records, or of the sequences to embed (``embedded_``).
Headers (an Arrow stream for each block) and the places of the sequences stand where the process that parsed the block
put them. The sequences of a plain file stay in it; those of a compressed file, or that the rules change, are in the
spool.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from virnucpro.split.cut import Span

#: Records read at once from the spool.
CHUNK_RECORDS: Final = 1 << 18

#: Keys are two big-endian 64-bit words, the more significant first.
KEY_TYPE: Final = np.dtype([("high", ">u8"), ("low", ">u8")])
COLUMN_TYPES: Final = {
    "keys": KEY_TYPE,
    "lengths": np.dtype(np.int32),
    "unique": np.dtype(np.int64),
    "status": np.dtype(np.uint8),
    "reuse_source": np.dtype(np.int32),
    "reuse_row": np.dtype(np.int64),
    "embedded_ordinals": np.dtype(np.int64),
    "embedded_lengths": np.dtype(np.int32),
}


@dataclass(frozen=True)
class Extent:
    """A stretch of a file: a name in the spool, or the path of an input."""

    file: str
    offset: int
    size: int


@dataclass(frozen=True)
class SpooledBlock:
    """Records that were parsed together.

    ``places`` holds where each truncated sequence begins and ends in ``text``, in which line ends do not count;
    how many of the records are ``embedded``, from ``first_unique`` on, is known once they are deduplicated.
    """

    first_ordinal: int
    records: int
    file_index: int
    text: Extent
    places: Extent
    headers: Extent
    first_unique: int = 0
    embedded: int = 0


@dataclass
class Spool:
    """A folder with the columns and the blocks; ``residue_limit`` cuts sequences, None leaves them whole; those above
    ``trained_limit`` are beyond what models are trained on; ``samples`` names that of each file, if any; the headers of
    ``translated`` contigs say where each protein lies."""

    directory: Path
    residue_limit: int | None
    trained_limit: int | None
    files: tuple[str, ...]
    samples: tuple[str, ...] = ()
    translated: bool = False
    blocks: list[SpooledBlock] = field(default_factory=list)

    @property
    def records(self) -> int:
        return self.blocks[-1].first_ordinal + self.blocks[-1].records if self.blocks else 0

    def path(self, column: str) -> Path:
        return self.directory / f"{column}.bin"

    def read(self, column: str, first: int, count: int) -> npt.NDArray[Any]:
        """Values ``first`` to ``first + count`` of a column."""
        kind = COLUMN_TYPES[column]
        return np.fromfile(self.path(column), kind, count, offset=first * kind.itemsize)

    def map(self, column: str, records: int) -> np.memmap[Any, Any]:
        """A column of ``records`` values mapped into memory, zeros where it is new."""
        mode: Literal["r+", "w+"] = "r+" if self.has(column) else "w+"
        return np.memmap(self.path(column), COLUMN_TYPES[column], mode, shape=(records,))

    def has(self, column: str) -> bool:
        return self.path(column).exists()

    def chunks(self, size: int) -> Iterator[tuple[int, int]]:
        """First ordinal and number of the records, at most ``size`` at once."""
        for start in range(0, self.records, size):
            yield start, min(size, self.records - start)

    def embedded_lengths(self, first: int, count: int) -> Iterator[npt.NDArray[np.int32]]:
        """Residues that are embedded of ``count`` sequences from a unique index on, in chunks."""
        for start in range(first, first + count, CHUNK_RECORDS):
            yield self.read("embedded_lengths", start, min(CHUNK_RECORDS, first + count - start))

    def load(self, extent: Extent) -> bytes:
        """The bytes of a stretch.

        Raises:
            DataError: an input has become shorter.
        """
        return Span(self.directory / extent.file, extent.offset, extent.size, extent.file).read()

    def places(self, block: SpooledBlock) -> npt.NDArray[np.int32]:
        """Where each sequence of a block begins and ends in its text: (records, 2)."""
        return np.frombuffer(self.load(block.places), np.int32).reshape(-1, 2)

    def section(self, first_unique: int, count: int) -> Spool:
        """The part of this spool that holds ``count`` sequences to embed from ``first_unique`` on."""
        starts = [block.first_unique for block in self.blocks]
        first = max(int(np.searchsorted(starts, first_unique, side="right")) - 1, 0)
        stop = int(np.searchsorted(starts, first_unique + count, side="left"))
        return replace(self, blocks=self.blocks[first:stop])


def above(lengths: npt.NDArray[np.int32], limit: int | None) -> npt.NDArray[np.bool_]:
    """Which lengths exceed a limit; none does where there is none."""
    return lengths > (np.iinfo(np.int32).max if limit is None else limit)


def write_all(stream: io.FileIO, data: memoryview) -> None:
    """Write the bytes to a file without a buffer."""
    while len(data):
        data = data[stream.write(data) :]
