"""Where proteins lie on contigs."""

from __future__ import annotations

from typing import NamedTuple


class Found(NamedTuple):
    """A protein of a contig: ``start`` and ``end`` are 1-based and both in it, ``start`` the smaller on either strand.

    ``end`` takes in a stop codon that was read.
    """

    id: str
    description: str
    residues: bytes
    forward: bool
    start: int
    end: int

    def frame(self, length: int) -> int:
        """The reading frame, 1 to 3, counted from the first nucleotide of its strand of a contig of that length."""
        return ((self.start - 1) if self.forward else (length - self.end)) % 3 + 1
