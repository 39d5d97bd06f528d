"""Files that are no FASTA, one for each format that is named: made with Biopython where it writes the format."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import zstandard
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord

#: What every format below holds that Biopython converts, as the reader of FASTA is to find it after that.
SEQUENCES = ["MKVLAAGHEW", "MKILSAGHEW"]
FASTA = b">a\nMKVLAAGHEW\n>b\nMKILSAGHEW\n"


def proteins(molecule_type: str = "protein") -> list[SeqRecord]:
    annotations = {"molecule_type": molecule_type}
    return [
        SeqRecord(Seq(text), id=name, name=name, description="x", annotations=annotations)
        for name, text in zip("ab", SEQUENCES, strict=True)
    ]


def written(name: str) -> bytes:
    stream = io.BytesIO() if name == "seqxml" else io.StringIO()
    SeqIO.write(proteins(), stream, name)
    value = stream.getvalue()
    return value if isinstance(value, bytes) else value.encode()


def genes(name: str) -> bytes:
    """A nucleotide record with two genes."""
    record = SeqRecord(Seq("ATGAAAGTT" * 20), id="AB000001.1", name="AB000001", annotations={"molecule_type": "DNA"})
    for i, translation in enumerate(SEQUENCES):
        place = SimpleLocation(60 * i, 60 * i + 33, strand=1)
        qualifiers = {"translation": [translation], "locus_tag": [f"gene{i}"], "protein_id": [f"P{i}.1"]}
        record.features.append(SeqFeature(place, type="CDS", qualifiers=qualifiers))
    stream = io.StringIO()
    SeqIO.write(record, stream, name)
    return stream.getvalue().encode()


PIR = f">P1;a\ncrystallin\n{SEQUENCES[0]}*\n\n>F1;b\nhemoglobin alpha, fragment\nMKILS\nAGHEW*\n".encode()
MODELLER = (
    b">P1;a\nstructureX:5fd1:1    :A:106  :A:ferredoxin:Azotobacter: 1.90: 0.19\nMKVLAAGHEW*\n>P1;b\n\nMKILSAGHEW*\n"
)
UNIPROT = "".join(
    f"ID   {name.upper()}_TEST                 Reviewed;          10 AA.\nAC   P0000{i};\n"
    f"DT   01-JAN-2000, integrated into UniProtKB/Swiss-Prot.\nDE   RecName: Full=Protein {name};\nOS   Virus.\n"
    f"OC   Viruses.\nOX   NCBI_TaxID=1;\nSQ   SEQUENCE   10 AA;  1100 MW;  ABCDEF0123456789 CRC64;\n     {text}\n//\n"
    for i, (name, text) in enumerate(zip("ab", SEQUENCES, strict=True))
).encode()
UNIPROT_XML = f"""<?xml version="1.0" encoding="UTF-8"?>
<uniprot xmlns="http://uniprot.org/uniprot">{
    "".join(
        f'''<entry dataset="Swiss-Prot"><accession>{name}</accession>
<name>{name}_TEST</name><sequence length="10" mass="1" checksum="0" modified="2000-01-01" version="1">{text}</sequence>
</entry>'''
        for name, text in zip("ab", SEQUENCES, strict=True)
    )
}</uniprot>
""".encode()
MSF = f"""!!AA_MULTIPLE_ALIGNMENT 1.0
PileUp

   MSF:   10  Type: P    Check:  7038   ..

 Name: a oo  Len:   10  Check:  3456  Weight:  1.00
 Name: b oo  Len:   10  Check:  3582  Weight:  1.00

//

              1         10
a             {SEQUENCES[0]}
b             {SEQUENCES[1]}
""".encode()
THREE = {"M": "MET", "K": "LYS", "V": "VAL", "L": "LEU", "A": "ALA", "G": "GLY", "H": "HIS", "E": "GLU", "W": "TRP"}
THREE |= {"I": "ILE", "S": "SER"}
PDB = "HEADER    TEST PROTEIN                            01-JAN-00   1ABC              \n" + "".join(
    f"SEQRES   1 {chain}   10  {' '.join(THREE[letter] for letter in text)}\n"
    for chain, text in zip("AB", SEQUENCES, strict=True)
)
ATOMS = "".join(
    f"ATOM  {i + 10 * j + 1:5d}  CA  {THREE[letter]} {chain}{i + 1:4d}    {3.8 * i:8.3f}{9.0 * j:8.3f}{0.0:8.3f}"
    "  1.00  0.00           C  \n"
    for j, (chain, text) in enumerate(zip("AB", SEQUENCES, strict=True))
    for i, letter in enumerate(text)
)
SCHEME = ("asym_id", "entity_id", "seq_id", "mon_id", "ndb_seq_num", "pdb_strand_id")
MMCIF = "data_1ABC\n_entry.id 1ABC\nloop_\n" + "".join(f"_pdbx_poly_seq_scheme.{name}\n" for name in SCHEME)
MMCIF += "".join(
    f"{chain} 1 {i + 1} {THREE[letter]} {i + 1} {chain}\n"
    for chain, text in zip("AB", SEQUENCES, strict=True)
    for i, letter in enumerate(text)
)
IG = f"; by hand\na\nMKVLA\nAGHEW1\n; and\nb\n{SEQUENCES[1]}1\n".encode()
SAM = b"@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:100\nr1\t0\tchr1\t1\t60\t4M\t*\t0\t0\tACGT\tIIII\n"
GFF = b"##gff-version 3\n##sequence-region chr1 1 100\nchr1\tx\tCDS\t1\t90\t.\t+\t0\tID=a\n##FASTA\n>chr1\nACGT\n"

#: Name -> (content, the words by which it is named, whether Biopython converts it to SEQUENCES as the message says).
TEXTS: dict[str, tuple[bytes, str, bool]] = {
    "pir": (PIR, "a PIR file", True),
    "modeller": (MODELLER, "a PIR file", True),
    "pir with comments": (PIR + b"C;Species: man\n", "a PIR file", False),
    "pir with CRLF": (PIR.replace(b"\n", b"\r\n"), "a PIR file", True),
    "pir of Biopython": (written("pir"), "a PIR file", True),
    "stockholm": (written("stockholm"), "a Stockholm alignment", True),
    "clustal": (written("clustal"), "a Clustal alignment", True),
    "clustalw": (written("clustal").replace(b"CLUSTAL X", b"CLUSTALW", 1), "a Clustal alignment", False),
    "muscle": (b"MUSCLE (3.8) multiple sequence alignment\n\n\na  MKV\nb  MKI\n", "a Clustal alignment", False),
    "nexus": (written("nexus"), "a NEXUS file", True),
    "mega": (b"#mega\n!Title x;\n\n#a\nMKV\n", "a MEGA alignment", False),
    "pir after a blank": (PIR.replace(b">", b"> "), "a PIR file", False),
    "pir in small letters": (PIR.replace(b"P1", b"p1").replace(b"F1", b"f1"), "a PIR file", False),
    "intelligenetics": (IG, "an IntelliGenetics file", True),
    "intelligenetics with CRLF": (IG.replace(b"\n", b"\r\n"), "an IntelliGenetics file", False),
    "gcg": (b"!!AA_SEQUENCE 1.0\nx\n a Length: 10 ..\n 1 MKV\n", "a GCG file of one sequence", False),
    "msf without a mark": (MSF.partition(b"PileUp\n\n")[2], "an MSF alignment", False),
    "promals": (b"PROMALS3D multiple sequence alignment\n\na  MKV\nb  MKI\n", "a Clustal alignment", False),
    "msf": (MSF, "an MSF alignment", True),
    "phylip": (written("phylip-relaxed"), "a PHYLIP alignment", True),
    "genpept": (written("genbank"), "a GenPept file", True),
    "genbank": (genes("genbank"), "a GenBank file of nucleotide", True),
    "embl": (genes("embl"), "an EMBL file of nucleotide", True),
    "uniprot": (UNIPROT, "a UniProt text file", True),
    "uniprot xml": (UNIPROT_XML, "a UniProt XML file", True),
    "seqxml": (written("seqxml"), "a SeqXML file", True),
    "xml": (b"<BlastOutput>\n</BlastOutput>\n", "an XML file", False),
    "html": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>\n", "a web page", False),
    "xhtml": (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD">\n<html/>', "a web page", False),
    "old html": (b"<HTML>\n<HEAD><TITLE>Sign in</TITLE></HEAD>\n", "a web page", False),
    "html without a head": (b"<meta charset=utf-8>\n<p>Not found</p>", "a web page", False),
    "html with comments": (b"<!-- a -->\n<!-- b -->\n<script>x()</script>", "a web page", False),
    "http": (b"HTTP/1.1 404 Not Found\r\nServer: x\r\n\r\n", "a server's message", False),
    "status": (b"404: Not Found", "a server's message", False),
    "error": (b"Error: cannot get document summary\n", "a server's message", False),
    "json": (b'[{"id": "a", "sequence": "MKV"}]\n', "a JSON file", False),
    "json lines": (b'{"id": "a"}\n{"id": "b"}\n', "a JSON file", False),
    "rtf": (b"{\\rtf1\\ansi >a\\par MKV}", "a Rich Text document", False),
    "pdb": (PDB.encode(), "a PDB file", True),
    "pdb of atoms": (ATOMS.encode(), "a PDB file without SEQRES", True),
    "mmcif": (MMCIF.encode(), "an mmCIF file", True),
    "mmcif with a comment": (b"# made by hand\n#\n" + MMCIF.encode(), "an mmCIF file", True),
    "fastq": (b"@r1\nACGT\n+\nIIII\n", "FASTQ reads", False),
    "sam": (SAM, "a SAM file", False),
    "vcf": (b"##fileformat=VCFv4.2\n#CHROM\tPOS\n", "a VCF file", False),
    "gff": (GFF, "a GFF file", False),
    "csv": (b"id,sequence\na,MKVLAAGHEW\nb,MKILSAGHEW\n", "a table with commas", False),
    "csv with quotes": (b'id,description,sequence\na,"x, y",MKV\nb,z,MKI\n', "a table with commas", False),
    "csv of a long sequence": (b"a," + b"M" * 200_000 + b"\nb," + b"K" * 200_000 + b"\n", "a table with commas", False),
    "tsv": (b"a\tMKVLAAGHEW\nb\tMKILSAGHEW\n", "a table with tabs", False),
    "csv of one row": (b"a,MKVLAAGHEW\n", "a table with commas", False),
    "csv of unequal rows": (b"id,sequence,note\na,MKV\nb,MKI,x\n", "a table with commas", False),
    "tsv of one row": (b"a\tsome protein\tMKVLAAGHEW", "a table with tabs", False),
    "bars": (b"id|sequence\na|MKV\nb|MKI\n", "a table with bars", False),
    "blanks": (b"a MKVLAAGHEW\nb MKILSAGHEW\n", "a table with blanks", False),
    "one sentence": (b"Sorry, try again\n", "not FASTA: the first line does not begin", False),
    "prose": (
        b"A text, of\nseveral lines, such\nas these\n",
        "not FASTA: the first line does not begin",
        False,
    ),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a pointer of Git LFS", False),
    "hmm": (b"HMMER3/f [3.3 | Nov 2019]\nNAME  x\n", "a profile HMM", False),
    "blast": (b"BLASTP 2.12.0+\n\nQuery= a\n", "a report of BLAST", False),
    "bare sequences": (b"MKVLAAGHEW\nMKILSAGHEW\n", "sequences without headers", False),
    "a list of files": (b"/data/a.fasta\n/data/b.fasta\n", "not FASTA: the first line does not begin", False),
}


def tar(format_: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format_) as archive:
        entry = tarfile.TarInfo("proteins.fasta")
        entry.size = len(FASTA)
        archive.addfile(entry, io.BytesIO(FASTA))
    return stream.getvalue()


def old_tar() -> bytes:
    """As before POSIX: without a mark."""
    archive = bytearray(tar(tarfile.USTAR_FORMAT))
    archive[257:512] = bytes(255)
    unsigned, _ = tarfile.calc_chksums(archive[:512])
    archive[148:156] = b"%06o\0 " % unsigned
    return bytes(archive)


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, FASTA)
    return stream.getvalue()


BINARIES: dict[str, tuple[bytes, str]] = {
    "tar of POSIX": (tar(tarfile.PAX_FORMAT), "a tar archive"),
    "tar of GNU": (tar(tarfile.GNU_FORMAT), "a tar archive"),
    "tar of Unix 7": (old_tar(), "a tar archive"),
    "zip": (zipped("protein.faa"), "a zip archive"),
    "empty zip": (zipped(), "a zip archive"),
    "xlsx": (zipped("[Content_Types].xml", "xl/workbook.xml"), "an Office document"),
    "ods": (b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/vnd.oasis.opendocument", "an Office document"),
    "doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an Office document"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document"),
    "abi": (b"ABIF\0\x65tdir" + bytes(40), "an ABI trace"),
    "sff": (b".sff\0\0\0\1" + bytes(40), "an SFF file"),
    "utf-16-le of other letters": (">ä 蛋白质\nMKV\n".encode("utf-16-le"), "text in UTF-16"),
    "utf-16-be of other letters": (">ä 蛋白质\nMKV\n".encode("utf-16-be"), "text in UTF-16"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive"),
    "rar": (b"Rar!\x1a\x07\x01\0", "a rar archive"),
    "lz4": (b"\x04\x22\x4d\x18\x64\x40\xa7", "data compressed with lz4"),
    "Z": (b"\x1f\x9d\x90>\xc2", "data compressed with compress"),
    "lzma": (b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0", "data compressed with lzma"),
    "bam": (b"BAM\1\x20\0\0\0", "a BAM file"),
    "2bit": (b"\x43\x27\x41\x1a" + bytes(12), "a 2bit file"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "parquet": (b"PAR1\x15\x04", "a Parquet file"),
    **{
        f"{encoding} {'with' if mark else 'without'} a mark": (
            (("\ufeff" if mark else "") + FASTA.decode()).encode(encoding),
            f"text in {encoding[:6].upper()}",
        )
        for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
        for mark in (True, False)
    },
}
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / f"{name.replace(' ', '-')}.fasta"
    path.write_bytes(content)
    return path
