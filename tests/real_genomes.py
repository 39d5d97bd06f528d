"""The genomes in tests/genomes, and what others make of them: Biopython, and pyrodigal-gv's command line."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from Bio import SeqIO
from Bio.Data.CodonTable import TranslationError
from Bio.SeqRecord import SeqRecord

FOLDER = Path(__file__).parent / "genomes"
GENOMES = sorted(FOLDER.glob("*.gb.gz"))
CONTIGS = FOLDER / "metagenomes.fna.gz"


class Call(NamedTuple):
    """A gene as Prodigal's command line tells of it; ``protein`` without the stop."""

    id: str
    start: int
    end: int
    strand: str
    protein: str


def entries() -> list[SeqRecord]:
    """The genomes' GenBank entries."""
    return [entry for path in GENOMES for entry in SeqIO.parse(io.StringIO(unpacked(path)), "genbank")]


def unpacked(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def annotated_proteins() -> list[str]:
    """Biopython's proteins of the genomes: /translation where there is one, else its own."""
    found = []
    for entry in entries():
        for feature in entry.features:
            if feature.type == "CDS":
                given = feature.qualifiers.get("translation")
                found.append(given[0] if given else _translated(feature, entry))
    return found


def _translated(feature: SeqIO.SeqRecord, entry: SeqRecord) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return str(feature.translate(entry.seq))
        except TranslationError:
            return str(feature.translate(entry.seq, cds=False)).removesuffix("*")


def called(folder: Path, files: Sequence[Path]) -> list[Call]:
    """What pyrodigal-gv's own command line calls in FASTA files, one after the other."""
    calls = []
    for path in files:
        proteins = folder / "called.faa"
        command = [sys.executable, "-m", "pyrodigal_gv", "-i", path, "-a", proteins, "-o", folder / "called.gff"]
        subprocess.run([*map(str, command)], check=True, capture_output=True)
        for record in SeqIO.parse(proteins, "fasta"):
            _, start, end, strand, _ = record.description.split(" # ")
            sign = "+" if strand == "1" else "-"
            calls.append(Call(record.id, int(start), int(end), sign, str(record.seq).removesuffix("*")))
    return calls
