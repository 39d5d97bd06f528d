"""What a file is that is no FASTA, told by its content, and how its proteins are had as FASTA."""

from __future__ import annotations

import codecs
import csv
import re
import tarfile
from dataclasses import dataclass
from itertools import islice
from typing import Final

#: Lines looked at to tell a table, or lines that hold a sequence each.
SAMPLE_LINES: Final = 5
#: Letters that a sequence may be written with, and marks of gaps and stops.
_SEQUENCE_LINE: Final = re.compile(rb"[A-Za-z*.-]+\s*\Z")
_DELIMITERS: Final = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "blanks"}
#: A field of a table that holds a sequence.
_CAPITALS: Final = re.compile(r"[A-Z*.-]{3,}")
#: Header of a PIR entry: the code of a molecule's kind, a semicolon, an id.
_PIR_HEADER: Final = re.compile(rb">[ \t]*(?i:P1|F1|D1|DL|DC|RL|RC|N1|N3|XX);[^\s;]")
_NO_RESIDUE: Final = re.compile(rb"[^A-Za-z*.\s-]")
_STOP_AT_LINE_END: Final = re.compile(rb"[A-Za-z]\s*\*[ \t\r]*(?:\n|\Z)")
#: More capitals in a row than a title's words have: the first line of a sequence.
_LONG_WORD: Final = re.compile(rb"[A-Z*-]{30,}\s*\Z")
#: A name, and a sequence up to the digit that says whether it is a ring.
_IG_ENTRY: Final = re.compile(rb"\S[^\n]*\n(?:[A-Za-z*-]+\s*\n)*[A-Za-z*-]+[12]\s*$", re.MULTILINE)
_COMMENTS: Final = re.compile(rb"(?:[#;][^\n]*(?:\n\s*|\Z))+")
_CONTROL: Final = re.compile(r"[\0-\b\x0e-\x1f\x7f\ufffd]")
_PRINTABLE: Final = re.compile(r"[\t-\r -~]+")


@dataclass(frozen=True)
class FileFormat:
    """A format by its name, with the article, and what the user is to do; FILE stands for the file's name."""

    what: str
    remedy: str


def _biopython(name: str) -> str:
    return f"convert it with Biopython: SeqIO.convert('FILE', '{name}', 'proteins.fasta', 'fasta')"


_COLUMNS: Final = "give --id_column and --sequence_column"
_GIVE: Final = "give protein sequences in FASTA format"
_SAVE: Final = "save the sequences as plain text, each below a line with '>' and its name"
_MATRIX: Final = "give the FASTA that it was made from"
_IMAGE: Final = FileFormat("an image", _GIVE)
_LZ4: Final = FileFormat("data compressed with lz4", "unpack it: lz4 -dc FILE > proteins.fasta")
_TWOBIT: Final = FileFormat("a 2bit file of nucleotide sequences", "give the proteins that its genes encode")
_PIR: Final = FileFormat("a PIR file", _biopython("pir"))
_IG: Final = FileFormat("an IntelliGenetics file", _biopython("ig"))
_ZIP: Final = FileFormat("a zip archive", "unpack it: unzip FILE")
_TAR: Final = FileFormat("a tar archive", "unpack it: tar -xf FILE")

#: First bytes -> format. What is told by more than its first bytes comes in ``recognise_binary``.
_MAGIC: Final = {
    b"7z\xbc\xaf\x27\x1c": FileFormat("a 7z archive", "unpack it: 7z x FILE"),
    b"Rar!\x1a\x07": FileFormat("a rar archive", "unpack it: unrar x FILE"),
    b"\x04\x22\x4d\x18": _LZ4,
    b"\x02\x21\x4c\x18": _LZ4,
    b"\x1f\x9d": FileFormat("data compressed with compress (.Z)", "unpack it: gzip -dc FILE > proteins.fasta"),
    b"\x5d\0\0": FileFormat("data compressed with lzma (.lzma)", "unpack it: xz -dc FILE > proteins.fasta"),
    b"LZIP": FileFormat("data compressed with lzip", "unpack it: lzip -dc FILE > proteins.fasta"),
    b"\x89LZO": FileFormat("data compressed with lzop", "unpack it: lzop -dc FILE > proteins.fasta"),
    b"%PDF": FileFormat("a PDF document", "get the sequences as FASTA where they are published"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": FileFormat("an Office document (.doc or .xls)", _SAVE),
    b"ABIF": FileFormat("an ABI trace of a sequencer", "give the proteins that its genes encode"),
    b".sff": FileFormat("an SFF file of reads", "give the proteins that its genes encode"),
    b"BAM\1": FileFormat("a BAM file of alignments", "give the proteins that its genes encode"),
    b"CRAM": FileFormat("a CRAM file of alignments", "give the proteins that its genes encode"),
    b"\x43\x27\x41\x1a": _TWOBIT,
    b"\x1a\x41\x27\x43": _TWOBIT,
    b"\x89HDF": FileFormat("an HDF5 file", _GIVE),
    b"PAR1": FileFormat("a Parquet file", f"{_COLUMNS}, or {_GIVE}"),
    b"ARROW1": FileFormat("an Arrow file", _GIVE),
    b"\x93NUMPY": FileFormat("a NumPy array", _GIVE),
    b"SQLite format 3\0": FileFormat("an SQLite database", _GIVE),
    b"\x89PNG": _IMAGE,
    b"\xff\xd8\xff": _IMAGE,
    b"GIF8": _IMAGE,
    b"\x7fELF": FileFormat("a program", _GIVE),
}

#: Beginnings of texts, tried in this order; comments of ``#`` or ``;`` that are no format's mark are passed over.
_TEXT: Final = tuple(
    (re.compile(pattern), FileFormat(what, remedy))
    for pattern, what, remedy in (
        (
            rb"(?is)(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*"
            rb"<(?:!doctype\s+html|html|head|body|meta|title|link|script|style|h\d|p|div|span|pre|center|table|br|a|b)\b",
            "a web page (HTML), such as an error or a login page that was saved in the file's place",
            "open it in a browser to see what it says, and download the FASTA again",
        ),
        (rb"(?s)<\?xml.{,4096}?<uniprot\b", "a UniProt XML file", _biopython("uniprot-xml")),
        (rb"(?s)<\?xml.{,4096}?<seqXML\b", "a SeqXML file", _biopython("seqxml")),
        (
            rb"(?i)HTTP/\d|(?:error:? )?[45]\d\d:? [a-z]+( [a-z]+)*\s*\Z|error\b[^\n>]*\s*\Z",
            "a server's message that was saved in the file's place",
            "read what it says, and download the FASTA again",
        ),
        (rb"<[?!A-Za-z]", "an XML file", "download it as FASTA from where it comes"),
        (rb"\{\\rtf", "a Rich Text document", _SAVE),
        (rb"[\[{]", "a JSON file", "write each sequence below a line with '>' and its name"),
        (rb"# STOCKHOLM", "a Stockholm alignment", _biopython("stockholm")),
        (rb"(?i)#NEXUS", "a NEXUS file", _biopython("nexus")),
        (rb"(?i)#MEGA", "a MEGA alignment", "export it as FASTA in MEGA"),
        (
            rb"CLUSTAL|(?:MUSCLE|PROBCONS|MSAPROBS|Kalign|T-COFFEE)[ (:,]|[^\n>]* multiple sequence alignment",
            "a Clustal alignment",
            _biopython("clustal"),
        ),
        (rb"!![AN]A_SEQUENCE", "a GCG file of one sequence", "take the sequence behind '..' without its numbers"),
        (rb"!![AN]A_|PileUp\b|MSF: +\d+ +Type:", "an MSF alignment (GCG)", _biopython("msf")),
        (rb"LOCUS {2,}.*\baa\b", "a GenPept file (GenBank's format)", _biopython("genbank")),
        (
            rb"LOCUS {2,}|[A-Z0-9.]+ +Genetic Sequence Data Bank",
            "a GenBank file of nucleotide sequences",
            _biopython("genbank-cds"),
        ),
        (rb"ID {3}\S.*\bAA\.", "a UniProt text file", _biopython("swiss")),
        (rb"ID {3}\S", "an EMBL file of nucleotide sequences", _biopython("embl-cds")),
        (rb"@(?:HD|SQ|RG|PG|CO)\t", "a SAM file of alignments", "give the proteins that its genes encode"),
        (rb"@", "FASTQ reads", "assemble them, and give the proteins that the genes encode"),
        (rb"##fileformat=VCF", "a VCF file of variants", _GIVE),
        (
            rb"##gff-version",
            "a GFF file of annotations",
            "give the proteins of its genes: gffread -y proteins.fasta -g GENOME FILE",
        ),
        (
            rb"(?ms)(?:HEADER|OBSLTE|TITLE |COMPND|REMARK|SEQRES|CRYST1|MODEL |ATOM  |HETATM)[ \d].*^SEQRES ",
            "a PDB file",
            _biopython("pdb-seqres"),
        ),
        (
            rb"(?:HEADER|OBSLTE|TITLE |COMPND|REMARK|SEQRES|CRYST1|MODEL |ATOM  |HETATM)[ \d]",
            "a PDB file without SEQRES lines",
            _biopython("pdb-atom"),
        ),
        (rb"(?ms)data_.*^_pdbx_poly_seq_scheme\.", "an mmCIF file", _biopython("cif-seqres")),
        (rb"data_", "an mmCIF file without the polymers' sequences", _biopython("cif-atom")),
        (rb"\d+[ \t]+\d+[ \t]*\r?\n", "a PHYLIP alignment", _biopython("phylip-relaxed")),
        (rb"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"),
        (rb"HMMER\d|HHsearch |NAME  ", "a profile HMM", _MATRIX),
        (rb"(?:# )?T?BLAST[NPX] ", "a report of BLAST", "give the FASTA that was searched"),
    )
)


def recognise_binary(head: bytes | bytearray) -> FileFormat | None:
    """Return what a file is whose first bytes are no text in ASCII or UTF-8, where that is known."""
    encoding = _wide_encoding(bytes(head[:256]))
    if encoding is not None:
        return FileFormat(f"text in {encoding[:6]}", f"convert it: iconv -f {encoding} -t UTF-8 FILE > proteins.fasta")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _zip_content(head)
    for magic, found in _MAGIC.items():
        if head.startswith(magic):
            return found
    return _TAR if _is_tar(bytes(head[: tarfile.BLOCKSIZE])) else None


def recognise_text(text: bytes) -> tuple[FileFormat | None, int]:
    """Return what a text is that is no FASTA, where that is known, and where in the text that begins.

    The text begins with its first visible character. Comments are passed over, unless they are a format's mark.
    """
    comments = _COMMENTS.match(text)
    start = comments.end() if comments else 0
    for place in sorted({0, start}):
        for pattern, found in _TEXT:
            if pattern.match(text, place):
                return found, place
    if text.startswith(b">", start):
        return (_PIR if _is_pir(text[start:]) else None), start
    if text.startswith(b";") and _IG_ENTRY.match(text, start):
        return _IG, 0
    return _lines_of(text[start:]), start


def _wide_encoding(start: bytes) -> str | None:
    """The encoding of a text of two or four bytes a character: by its mark, or as FASTA or plain letters."""
    for encoding, mark in (
        ("UTF-32", codecs.BOM_UTF32_LE),
        ("UTF-32", codecs.BOM_UTF32_BE),
        ("UTF-16", codecs.BOM_UTF16_LE),
        ("UTF-16", codecs.BOM_UTF16_BE),
    ):
        if start.startswith(mark):
            return encoding
    for encoding in ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE"):
        # What the cut leaves of a character at the end is passed over.
        text = codecs.getincrementaldecoder(encoding)("replace").decode(start)
        if len(text) >= 4 and (_PRINTABLE.fullmatch(text) or _is_fasta(text)):
            return encoding
    return None


def _is_fasta(text: str) -> bool:
    """Whether it has other letters in headers and comments alone: FASTA of one byte a character with a stray zero byte,
    read as two bytes a character, has them in its sequences too."""
    lines = [line for line in text.split("\n") if line and not line.startswith((">", ";", "#"))]
    plain = bool(lines) and all(map(_PRINTABLE.fullmatch, lines))
    return text.startswith(">") and plain and not _CONTROL.search(text)


def _zip_content(head: bytes | bytearray) -> FileFormat:
    """Office documents are zip archives that say what they hold in their first entries."""
    if b"[Content_Types].xml" in head[:4096] or b"mimetypeapplication/vnd.oasis" in head[:128]:
        return FileFormat("an Office document (such as .docx or .xlsx)", _SAVE)
    return _ZIP


def _is_tar(block: bytes) -> bool:
    if b"\0" not in block:
        return False
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _is_pir(text: bytes) -> bool:
    """Whether the headers are PIR's, and a title stands below one: it has what no sequence has, or a sequence that
    ends with ``*`` follows it. A FASTA file whose ids look like PIR's is none."""
    if not _PIR_HEADER.match(text):
        return False
    entries = text[1:].split(b"\n>")
    if not all(_PIR_HEADER.match(b">" + entry) for entry in entries):
        return False
    for entry in entries:
        _, title, sequence = (*entry.split(b"\n", 2), b"", b"")[:3]
        if _NO_RESIDUE.search(title):
            return True
        if title.strip() and not _LONG_WORD.match(title) and _STOP_AT_LINE_END.search(sequence):
            return True
    return False


def _lines_of(text: bytes) -> FileFormat | None:
    """A table, or sequences without headers."""
    lines = [line for line in islice(text.split(b"\n"), 4 * SAMPLE_LINES) if line.strip()][:SAMPLE_LINES]
    words = [line.decode("utf-8", "replace") for line in lines]
    for delimiter, name in _DELIMITERS.items():
        rows = _rows(words, delimiter)
        widths = {len(row) for row in rows}
        sequences = [any(map(_CAPITALS.fullmatch, row)) for row in rows]
        even = len(rows) > 1 and len(widths) == 1 and delimiter != " "
        # One row, or rows of unequal width, are a table where they hold sequences.
        if widths and min(widths) > 1 and (even or all(sequences[1:] or sequences)):
            separator = "" if delimiter == " " else f" -F '{delimiter}'".replace("\t", "\\t")
            program = f"""awk{separator} '{{print ">" $1 "\\n" $2}}' FILE > proteins.fasta"""
            columns = "" if delimiter in " |" else f"{_COLUMNS}, or "
            remedy = f"{columns}write its rows as FASTA, for example columns 1 and 2: {program}"
            return FileFormat(f"a table with {name} between its columns", remedy)
    if lines and all(map(_SEQUENCE_LINE.match, lines)):
        return FileFormat("sequences without headers", "put a line with '>' and a name before each")
    return None


def _rows(lines: list[str], delimiter: str) -> list[list[str]]:
    if delimiter == " ":
        return [line.split() for line in lines]
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:  # a field longer than the module takes
        return [line.split(delimiter) for line in lines]
