"""A block of contigs as a block of their proteins, in FASTA: what is parsed then are proteins as of any input."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.config import SequenceConfig
from virnucpro.fasta import UPPER, parse_header
from virnucpro.fasta_source import WHITE_SPACE
from virnucpro.fasta_text import Fault, find_fault, without_comments
from virnucpro.output.schema import CONTIG_FIELDS
from virnucpro.split.columns import numbers, texts
from virnucpro.split.genes import NO_GENE, genes
from virnucpro.split.parse import ParsedBlock
from virnucpro.split.places import Found
from virnucpro.split.six_frame import NO_FRAME, NUCLEOTIDES, six_frames

NO_NUCLEOTIDES: Final = "no nucleotide left"
CODON: Final = 3
_TO_DNA: Final = bytes.maketrans(b"U", b"T")


class Contig(NamedTuple):
    """A record of a block: the line of its header, from 0, and its letters as ``letters_of`` gives them."""

    line: int
    id: str
    description: str
    letters: bytes
    comment_lines: int


@dataclass(frozen=True)
class Translation:
    """How contigs become proteins; a task takes it along."""

    mode: str
    chunk: int
    genetic_code: int
    min_contig: int

    @classmethod
    def of(cls, config: SequenceConfig) -> Self | None:
        """As a run was told; None of one whose input is protein."""
        if config.translate is None:
            return None
        return cls(config.translate, config.chunk, config.genetic_code, config.min_contig)

    def proteins(self, contig: str, letters: bytes) -> tuple[list[Found], int]:
        """The proteins of a contig in order, and how many frames were left out for a stop.

        Raises:
            ValueError: it cannot be translated; the text is the reason.
        """
        if symbols := letters.translate(None, NUCLEOTIDES):
            raise ValueError(f"symbol {symbols.decode('utf-8', 'replace')[0]!a} in the contig")
        if not letters:
            raise ValueError(NO_NUCLEOTIDES)
        if len(letters) < self.min_contig:
            raise ValueError(f"contig of {len(letters)} nucleotides, below --min_contig {self.min_contig}")
        if len(letters) < CODON:
            size = "1 nucleotide" if len(letters) == 1 else f"{len(letters)} nucleotides"
            raise ValueError(f"contig of {size}, too short to translate")
        if self.mode == "genes":
            return list(genes(contig, letters)), 0
        return six_frames(contig, letters, self.chunk, self.genetic_code)

    @property
    def nothing(self) -> str:
        """The reason of a contig without proteins."""
        return NO_GENE if self.mode == "genes" else NO_FRAME


@dataclass(frozen=True)
class Proteins:
    """The proteins of a block of contigs as FASTA, and what stands for each; a contig without any has an empty one.

    ``lines`` are the contigs' (from 0), ``reasons`` why there is no protein, ``places`` the columns of
    ``CONTIG_FIELDS``; ``newlines`` and ``comment_lines`` are those of the block, ``stopped_frames`` were left out.
    """

    text: bytes
    lines: npt.NDArray[np.int64]
    reasons: dict[int, str]
    places: dict[str, pa.Array]
    newlines: int
    comment_lines: int
    stopped_frames: int

    def of_contigs(self, block: ParsedBlock) -> dict[str, Any]:
        """What the parsed text is to say of the contigs instead of itself."""
        return {
            "lines": self.lines,
            "reasons": block.reasons | self.reasons,
            "newlines": self.newlines,
            "comment_lines": self.comment_lines,
        }


@dataclass
class _Rows:
    """A row for each protein, and for each contig without one."""

    text: bytearray = field(default_factory=bytearray)
    lines: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    contigs: list[str] = field(default_factory=list)
    places: list[tuple[bool, int, int, int]] = field(default_factory=list)
    stopped_frames: int = 0

    def add(self, contig: str, line: int, length: int, found: Found) -> None:
        self._write(contig, line, found.id, found.description, found.residues)
        self.places.append((found.forward, found.frame(length), found.start, found.end))

    def reject(self, contig: str, description: str, line: int, reason: str) -> None:
        self.reasons[len(self.lines)] = reason
        self._write(contig, line, contig, description, b"")
        self.places.append((True, 0, 0, 0))

    def _write(self, contig: str, line: int, name: str, description: str, residues: bytes) -> None:
        self.lines.append(line)
        self.contigs.append(contig)
        self.text += b">%s\n%s\n" % (f"{name} {description}".rstrip().encode("utf-8", "replace"), residues)

    def columns(self) -> dict[str, pa.Array]:
        """``CONTIG_FIELDS``, null but for the contig where there is no protein."""
        forward, frame, start, end = np.array(self.places, np.int64).T
        null: npt.NDArray[np.bool_] = frame == 0
        strands = texts(["+" if each else "-" for each in forward.tolist()])
        made = [
            texts(self.contigs),
            pa.StringArray.from_buffers(len(null), *strands.buffers()[1:], numbers(frame, null).buffers()[0]),
            numbers(frame.astype(np.int32), null),
            numbers(start, null),
            numbers(end, null),
        ]
        return dict(zip((each.name for each in CONTIG_FIELDS), made, strict=True))


def translate_block(contigs: bytes, translation: Translation) -> Proteins | Fault:
    """Translate a block that begins with ``>`` and holds whole records; return its proteins, or the first fault."""
    if (fault := find_fault(io.BytesIO(contigs))) is not None:
        return fault
    rows, comment_lines = _Rows(), 0
    for line, contig, description, letters, comments in contigs_of(contigs):
        comment_lines += comments
        try:
            found, stopped = translation.proteins(contig, letters)
        except ValueError as error:
            rows.reject(contig, description, line, str(error))
            continue
        rows.stopped_frames += stopped
        if not found:
            rows.reject(contig, description, line, translation.nothing)
        for each in found:
            rows.add(contig, line, len(letters), each)
    return Proteins(
        bytes(rows.text),
        np.array(rows.lines, np.int64),
        rows.reasons,
        rows.columns(),
        contigs.count(b"\n"),
        comment_lines,
        rows.stopped_frames,
    )


def contigs_of(block: bytes) -> Iterator[Contig]:
    """The records of a block that begins with ``>``, holds whole records and has no fault."""
    line = start = 0
    while start < len(block):
        stop = block.find(b"\n>", start) + 1 or len(block)
        header, _, body = block[start + 1 : stop].partition(b"\n")
        text, comment_lines = without_comments(body)
        yield Contig(line, *parse_header(header), letters_of(text), comment_lines)
        line += block.count(b"\n", start, stop)
        start = stop


def letters_of(text: bytes) -> bytes:
    """The nucleotides of a sequence as they are translated: capitals without blanks, T for U."""
    return text.translate(UPPER, WHITE_SPACE).translate(_TO_DNA)
