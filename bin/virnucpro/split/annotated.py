"""GenBank, EMBL and UniProt's text and XML, read by Biopython: annotated proteins, or entries that are proteins."""

from __future__ import annotations

import io
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final
from xml.etree.ElementTree import ParseError

from virnucpro.errors import FastaFormatError
from virnucpro.fasta_source import WHITE_SPACE
from virnucpro.fasta_text import BOM
from virnucpro.plain_text import visible
from virnucpro.split.converted_source import ConvertedSource, Protein

#: Beginnings of files, tried in this order -> Biopython's name for the format, and ours.
_FORMATS: Final = (
    (re.compile(rb"(?s)<\?xml.{,4096}?<uniprot\b"), "uniprot-xml", "UniProt XML"),
    (re.compile(rb"LOCUS {2,}|[A-Z0-9.]+ +Genetic Sequence Data Bank"), "genbank", "GenBank"),
    (re.compile(rb"ID {3}\S.*\bAA\."), "swiss", "UniProt text"),
    (re.compile(rb"ID {3}\S"), "embl", "EMBL"),
)
#: How entries begin, by Biopython's name for the format: a line end, and these.
_BEGINNINGS: Final = {"genbank": b"LOCUS ", "embl": b"ID   ", "swiss": b"ID   "}
_LINE_ENDS: Final = (b"\n", b"\r")
TAIL_BYTES: Final = 1 << 10
#: What names a protein, in this order.
_NAMES: Final = ("protein_id", "locus_tag")


class AnnotatedSource(ConvertedSource):
    """The proteins of annotated entries: each CDS of a nucleotide sequence, each entry that is itself a protein; or,
    where ``contigs`` are asked for, each nucleotide sequence.

    A CDS is called by its protein_id, else its locus_tag, else by its sequence and its number there.

    Args:
        path, name: as of ``FastaSource``.
        format: Biopython's name, and what messages call it.
        contigs: take the sequences that are annotated, whatever is annotated on them.
    """

    nothing = "no annotated protein (CDS) in it; --translate genes or --translate six_frame takes its sequences"

    def __init__(self, path: Path, format: tuple[str, str], *, name: str, contigs: bool = False) -> None:
        super().__init__(path, name=name)
        self._format, self._called = format
        self._contigs = contigs
        self._begun, self._tail = 0, b""

    def proteins(self, stream: BinaryIO) -> Iterator[Protein]:
        """Yield the proteins in the order of the file, an entry at a time.

        Raises:
            FastaFormatError: Biopython cannot read an entry.
        """
        from Bio import SeqIO

        parse: Any = SeqIO.parse
        read = 0
        try:
            with warnings.catch_warnings():
                warnings.showwarning = self._show  # type: ignore[assignment]  # takes whatever comes with it
                text = stream if self._format == "uniprot-xml" else io.TextIOWrapper(stream, "utf-8", "replace")
                for entry in parse(text, self._format):
                    read += 1
                    yield from self._proteins_of(entry)
            if self._format != "uniprot-xml" and not self._tail.rstrip().endswith(b"//"):
                raise ValueError("no // at its end")
            if self._begun > read:
                raise ValueError(f"{self._begun} begin, so that one has no // at its end")
        except FastaFormatError:
            raise
        except (ValueError, LookupError, TypeError, AssertionError, ParseError) as error:
            what = f"cannot be read as {self._called} after {read} entries ({error})"
            remedy = "copy or download it again, or give its proteins as FASTA"
            raise FastaFormatError(what, file=self.name, remedy=remedy) from None

    def _decompressed(self, stream: BinaryIO | io.FileIO, read_bytes: int) -> Iterator[bytes]:
        """The file from its first letter on: Biopython leaves out an entry whose line begins otherwise."""
        beginning = _BEGINNINGS.get(self._format, b"")
        before = b""
        for chunk in super()._decompressed(stream, read_bytes):
            text = before + chunk if before else b"\n" + chunk.removeprefix(BOM).lstrip(WHITE_SPACE)
            self._begun += sum(text.count(end + beginning) for end in _LINE_ENDS if beginning)
            self._tail = (self._tail + chunk)[-TAIL_BYTES:]
            yield text[max(len(before), 1) :]
            before = text[-max(len(beginning), 1) :]

    def _proteins_of(self, entry: Any) -> Iterator[Protein]:
        is_protein = self._format not in ("genbank", "embl") or entry.annotations.get("molecule_type") == "protein"
        if self._contigs and is_protein:
            raise FastaFormatError(f"{self._called} of proteins", file=self.name, remedy="leave --translate out")
        if self._contigs or is_protein:
            yield Protein(entry.id, entry.description, _letters(entry.seq))
            return
        genes = (feature for feature in entry.features if feature.type == "CDS")
        for number, gene in enumerate(genes, 1):
            told = {name: values[0] for name, values in gene.qualifiers.items() if values}
            called = next((told[name] for name in _NAMES if told.get(name)), f"{entry.id}_{number}")
            words = [told.get("product", ""), f"[{entry.annotations.get('organism', '')}]", f"of {entry.id}"]
            description = " ".join(word for word in words if word not in ("", "[]"))
            yield Protein(called, description, told.get("translation") or self._translated(entry, gene, called))

    def _translated(self, entry: Any, gene: Any, called: str) -> str:
        """The CDS translated by its own table and codon_start; nothing, with a warning, where that cannot be."""
        if "pseudo" in gene.qualifiers or "pseudogene" in gene.qualifiers:
            return ""
        from Bio.Data.CodonTable import TranslationError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    return str(gene.translate(entry.seq))
                except TranslationError:  # no whole reading frame from a start to its stop
                    return str(gene.translate(entry.seq, cds=False))
        except (ValueError, LookupError, TypeError, TranslationError) as error:
            self._warn(f"{called} of {entry.id} has no /translation and cannot be translated ({error})")
            return ""

    def _show(self, message: Warning | str, *_: object) -> None:
        """What Biopython has to say of a file."""
        self._warn(str(message))

    def _warn(self, told: str) -> None:
        print(visible(f"warning: {self.name}: {' '.join(told.split())}"), file=sys.stderr)


def _letters(sequence: Any) -> str:
    """The letters of a sequence; none of one that an entry tells the length of, and nothing else."""
    from Bio.Seq import UndefinedSequenceError

    try:
        return str(sequence)
    except UndefinedSequenceError:
        return ""


def annotated_format(text: bytes) -> tuple[str, str] | None:
    """Biopython's name for the format of a file that begins with ``text``, and what messages call it."""
    return next(((reader, called) for pattern, reader, called in _FORMATS if pattern.match(text)), None)
