"""What callers hold as contigs, and their proteins: by the rules, and under the names, that the pipeline has."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from virnucpro.api.sequences import Sequences, existing, named_texts
from virnucpro.config import SequenceConfig, SplitConfig
from virnucpro.errors import DataError
from virnucpro.fasta import Record, Rejected, normalised
from virnucpro.fasta_source import protein_share
from virnucpro.fasta_text import find_fault
from virnucpro.split.contigs import Contig, Translation, contigs_of, letters_of
from virnucpro.split.cut import cut_stream
from virnucpro.split.places import Found
from virnucpro.split.sources import open_source

#: Bytes of a file's contigs that are held at once.
_BLOCK_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class ContigProtein(Record):
    """A protein, and where it lies: see ``CONTIG_FIELDS``."""

    contig: str
    strand: str
    frame: int
    start: int
    end: int


@dataclass
class ContigReader:
    """The proteins of contigs; ``stopped_frames`` counts the frames that were left out for a stop.

    Args:
        config: how contigs become proteins.
    """

    config: SequenceConfig
    stopped_frames: int = 0

    def read(self, contigs: Sequences) -> Iterator[ContigProtein | Rejected]:
        """Yield the proteins of every contig in order, and in its place a contig that has none.

        Args:
            contigs: as what ``read_sequences`` takes; a file may also be GenBank or EMBL.

        Raises:
            InputMissingError: no such file.
            FastaFormatError: the file is none of these, or of proteins.
            DataError: the sequences are of proteins.
            UsageError: what should be a text is none, or pyrodigal-gv is not installed.
        """
        for ordinal, (contig, found) in enumerate(self._found(contigs)):
            if isinstance(found, str):
                yield Rejected(ordinal, contig.id, contig.description, contig.line, found)
            else:
                yield _protein(ordinal, contig, found, self.config.gaps)

    def _found(self, contigs: Sequences) -> Iterator[tuple[Contig, Found | str]]:
        """Each protein with its contig, and each contig without any with the reason."""
        translation = Translation.of(self.config)
        assert translation is not None
        for contig in (
            self._of_file(existing(contigs)) if isinstance(contigs, str | os.PathLike) else _of_texts(contigs)
        ):
            try:
                found, stopped = translation.proteins(contig.id, contig.letters)
            except ValueError as error:
                yield contig, str(error)
                continue
            self.stopped_frames += stopped
            for each in found or (translation.nothing,):
                yield contig, each

    def _of_file(self, path: Path) -> Iterator[Contig]:
        """The contigs of a file, each with its line there."""
        names = ("translate", "chunk", "genetic_code", "min_contig")
        options: dict[str, Any] = {name: getattr(self.config, name) for name in names}
        source = open_source(SplitConfig(inputs=(path,), model_json=Path(), **options), path, str(path))
        line = 0
        for block in cut_stream(source, _BLOCK_BYTES):
            if (fault := find_fault(io.BytesIO(block))) is not None:
                raise fault.error(source.name, source.first_line + line)
            for contig in contigs_of(block):
                place = (line + contig.line) // (source.record_lines or 1)
                yield contig._replace(line=source.first_line + place)
            line += block.count(b"\n")


def _of_texts(contigs: Any) -> Iterator[Contig]:
    named: Mapping[str, str] = named_texts(contigs)
    if share := protein_share(text.encode(errors="replace") for text in named.values()):
        raise DataError(f"protein sequences ({share}); leave translate out")
    for name, text in named.items():
        yield Contig(0, name, "", letters_of(text.encode(errors="replace")), 0)


def _protein(ordinal: int, contig: Contig, found: Found, gaps: str) -> ContigProtein | Rejected:
    record = normalised(ordinal, found.id, found.description, found.residues, contig.line, gaps)
    if isinstance(record, Rejected):
        return record
    return ContigProtein(
        **asdict(record),
        contig=contig.id,
        strand="+" if found.forward else "-",
        frame=found.frame(len(contig.letters)),
        start=found.start,
        end=found.end,
    )
