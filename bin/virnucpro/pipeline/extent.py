"""Which sequences a shard holds, and how many tokens they are, without reading them one by one."""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from virnucpro.config import Windows
from virnucpro.errors import DataError, InputMissingError
from virnucpro.shards import SPECIAL_TOKENS, shard_number
from virnucpro.windows import computed_tokens


@dataclass(frozen=True)
class ShardExtent:
    """The shard of this number holds the unique indices ``first`` to ``first + sequences - 1``, in any order.

    ``tokens`` are those that are computed, each sequence or window with its start and end token.
    """

    shard: int
    first: int
    sequences: int
    tokens: int


def shard_extent(shard: Path, windows: Windows | None = None) -> ShardExtent:
    """Read a shard's unique indices off its headers, and its sequences' lengths off what lies between.

    Raises:
        InputMissingError: the file is not there.
        DataError: its name has no number, a header is not a bare number, or these are not one unbroken range.
    """
    if not shard.is_file():
        raise InputMissingError(f"shard {shard} does not exist; run SPLIT_FASTA first")
    number = shard_number(shard.name.split(".")[0])
    if number is None:
        raise DataError(f"{shard} is not a shard of SPLIT_FASTA, which is named like shard-00000.fasta; split again")
    if shard.stat().st_size == 0:
        return ShardExtent(number, 0, 0, 0)
    with shard.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as text:
        found = [match[1] for match in re.finditer(rb"(?m)^>(\d+)$", text)]
        headers = sum(1 for _ in re.finditer(rb"(?m)^>", text))
        size = len(text)
        starts = () if windows is None else tuple(match.start() for match in re.finditer(rb"(?m)^>", text))
    indices = np.array([int(number) for number in found], dtype=np.int64)
    if headers != indices.size or indices.size == 0:
        raise DataError(f"{shard} is not a shard of SPLIT_FASTA: its headers must be bare numbers; split again")
    first = int(indices.min())
    if np.unique(indices).size != indices.size or int(indices.max()) != first + indices.size - 1:
        raise DataError(f"{shard} does not hold one unbroken range of sequences; split again")
    residues = size - sum(map(len, found)) - len(b">\n\n") * len(found)
    tokens = residues + SPECIAL_TOKENS * len(found)
    if windows is not None:
        digits = np.fromiter(map(len, found), np.int64, len(found))
        lengths = np.diff(np.array([*starts, size])) - digits - len(b">\n\n")
        tokens = int(computed_tokens(lengths, windows).sum())
    return ShardExtent(number, first, int(indices.size), tokens)
