"""Contigs in chunks, and each chunk's six frames, as VirNucPro's classifiers are fed."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt

from virnucpro.split.places import Found

NO_FRAME: Final = "no frame without a stop"

#: Nucleotides as sets of A, C, G and T: one bit each, of which the reverse order is the complement.
_BASES: Final = "ACGT"
_SETS: Final = {"A": 1, "C": 2, "G": 4, "T": 8, "U": 8} | {
    **{"M": 3, "R": 5, "W": 9, "S": 6, "Y": 10, "K": 12},
    **{"V": 7, "H": 11, "D": 13, "B": 14, "N": 15},
}
#: IUPAC's codes, U included.
NUCLEOTIDES: Final = "".join(_SETS).encode()
_STOP: Final = b"*"

Letters = npt.NDArray[np.uint8]


def chunk_starts(length: int, chunk: int) -> list[int]:
    """Where the chunks of a contig begin, from 0: as few as cover it, overlaps as even as can be, longer ones first."""
    count = -(-length // chunk)
    if count < 2:
        return [0]
    shared, longer = divmod(count * chunk - length, count - 1)
    return [i * (chunk - shared) - min(i, longer) for i in range(count)]


def six_frames(contig: str, letters: bytes, chunk: int, genetic_code: int) -> tuple[list[Found], int]:
    """The proteins of the frames without a stop, and how many frames have one.

    Chunks are numbered from 1 along the contig; F1 to R3 are a chunk's own frames. A codon of ambiguous nucleotides is
    the amino acid that all its readings give, a stop where all are stops, and X otherwise.

    Args:
        contig: its id.
        letters: its nucleotides, of ``NUCLEOTIDES``.
        chunk: nucleotides of a chunk.
        genetic_code: NCBI's number of the table.
    """
    forward, reverse = (codons.tobytes() for codons in _codons(letters, genetic_code))
    found: list[Found] = []
    stopped = 0
    for number, first in enumerate(chunk_starts(len(letters), chunk), 1):
        end = min(first + chunk, len(letters))
        for strand, frame in product((True, False), range(3)):
            count = (end - first - frame) // 3
            if count < 1:
                continue
            start = first + frame if strand else end - frame - 3 * count
            residues = (forward if strand else reverse)[start : start + 3 * count - 2 : 3]
            if _STOP in residues:
                stopped += 1
                continue
            name = f"{contig}_chunk_{number}{'F' if strand else 'R'}{frame + 1}"
            residues = residues if strand else residues[::-1]
            found.append(Found(name, "", residues, strand, start + 1, start + 3 * count))
    return found, stopped


def _codons(letters: bytes, genetic_code: int) -> tuple[Letters, Letters]:
    """What the codon that begins at each nucleotide says, on the strand as it is and on the other: (n - 2,) each."""
    sets = np.frombuffer(letters.translate(_to_sets()), np.uint8).astype(np.uint16)
    codons = sets[:-2] << 8 | sets[1:-1] << 4 | sets[2:]
    forward, reverse = _tables(genetic_code)
    return forward[codons], reverse[codons]


@cache
def _to_sets() -> bytes:
    return bytes.maketrans(NUCLEOTIDES, bytes(_SETS.values()))


@cache
def _tables(genetic_code: int) -> tuple[Letters, Letters]:
    """The amino acid of each codon of three sets of nucleotides, 4 bits each, and of its reverse complement."""
    from Bio.Data.CodonTable import unambiguous_dna_by_id

    table = unambiguous_dna_by_id[genetic_code]
    readings = {codon: table.forward_table.get(codon, "*") for codon in map("".join, product(_BASES, repeat=3))}
    members = ["".join(base for bit, base in enumerate(_BASES) if bits >> bit & 1) for bits in range(16)]
    forward, reverse = np.full((2, 16**3), ord("X"), np.uint8)
    for codon in product(range(1, 16), repeat=3):
        meanings = {readings["".join(reading)] for reading in product(*(members[bits] for bits in codon))}
        if len(meanings) == 1:
            forward[_place(codon)] = reverse[_place(tuple(map(_complement, codon[::-1])))] = ord(meanings.pop())
    return forward, reverse


def _place(codon: tuple[int, ...]) -> int:
    return codon[0] << 8 | codon[1] << 4 | codon[2]


def _complement(bits: int) -> int:
    return int(f"{bits:04b}"[::-1], 2)
