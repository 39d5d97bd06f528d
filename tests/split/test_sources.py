"""Inputs that are no FASTA: annotated entries and tables, by the program that the pipeline's task runs."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import CompoundLocation, SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord
from foreign_files import SEQUENCES, TEXTS, genes
from split_program import ledger, split

COLUMNS = ("--id-column=name", "--sequence-column=seq")


def sequences(folder: Path) -> dict[str, str]:
    """The sequences of the records that are embedded, by id."""
    lines = [line for path in sorted((folder / "split" / "shards").iterdir()) for line in path.read_text().split()]
    by_index = dict(zip(lines[::2], lines[1::2], strict=True))
    return {row["id"]: by_index[f">{row['unique_index']}"] for row in ledger(folder) if row["shard"] is not None}


def gene(location: Any, **qualifiers: str) -> SeqFeature:
    return SeqFeature(location, type="CDS", qualifiers={name: [value] for name, value in qualifiers.items()})


def genome(format: str) -> bytes:
    """Two entries: the first has a gene of each kind, the second none."""
    #      0         10        20        30        40        50
    text = "ATGAAATGAGTTTAA" + "CC" + "TTAAACCCAT" + "GG" + "CATGGCTTGGTAA" + "TTGAAACCCTAG"
    features = [
        gene(SimpleLocation(0, 15, 1), protein_id="WP_1.1", translation="MKWV", product="a protein"),
        gene(SimpleLocation(0, 15, 1), locus_tag="T_2", transl_table="4"),
        gene(SimpleLocation(0, 15, 1), transl_table="1"),
        gene(SimpleLocation(18, 27, -1), protein_id="WP_4.1"),
        gene(CompoundLocation([SimpleLocation(30, 33, 1), SimpleLocation(33, 42, 1)]), protein_id="WP_5.1"),
        gene(SimpleLocation(29, 42, 1), protein_id="WP_6.1", codon_start="2"),
        gene(SimpleLocation(42, 54, 1), protein_id="WP_7.1", transl_table="11"),
        gene(SimpleLocation(42, 54, 1), locus_tag="T_8", pseudo=""),
    ]
    annotations = {"molecule_type": "DNA", "organism": "Some virus"}
    entries = [
        SeqRecord(Seq(text), "NC_1.1", "NC_1", features=features, annotations=annotations),
        SeqRecord(Seq(text), "NC_2.1", "NC_2", annotations=annotations),
    ]
    stream = io.StringIO()
    SeqIO.write(entries, stream, format)
    return stream.getvalue().encode()


#: As translated by hand: UGA is W in table 4 and a stop in table 1, UUG a start in table 11.
PROTEINS = {
    "WP_1.1": "MKWV",
    "T_2": "MKWV",
    "NC_1.1_3": "MKXV",
    "WP_4.1": "MGL",
    "WP_5.1": "MAW",
    "WP_6.1": "MAW",
    "WP_7.1": "MKP",
}


@pytest.mark.parametrize("format", ["genbank", "embl"])
def test_annotated_proteins(tmp_path: Path, format: str) -> None:
    path = tmp_path / "genome"
    path.write_bytes(gzip.compress(genome(format)))
    said = split(tmp_path, "--no-dedup", path)
    assert sequences(tmp_path) == PROTEINS
    rows = ledger(tmp_path)
    assert [row["id"] for row in rows] == [*PROTEINS, "T_8"]
    assert rows[0]["description"] == "a protein [Some virus] of NC_1.1"
    assert (rows[-1]["status"], rows[-1]["reason"]) == ("rejected", "no residue left")
    assert (tmp_path / "split" / "rejected.tsv").read_text().splitlines()[1:] == [f"{path}\t8\t7\tT_8\tno residue left"]
    assert "1 records rejected" in said


def test_annotated_proteins_are_those_of_biopython(tmp_path: Path) -> None:
    path = tmp_path / "genome.gb"
    path.write_bytes(genome("genbank"))
    split(tmp_path, "--no-dedup", path)
    (entry, _) = SeqIO.parse(path, "genbank")
    # Whole from a start to the only stop; the first has its /translation.
    whole = [True, False, False, False, False, True]
    translated = [
        str(feature.translate(entry.seq, cds=is_whole)).removesuffix("*").replace("*", "X")
        for feature, is_whole in zip(entry.features[1:-1], whole, strict=True)
    ]
    expected = [*entry.features[0].qualifiers["translation"], *translated]
    assert list(sequences(tmp_path).values()) == expected


@pytest.mark.parametrize("format", ["genbank", "embl"])
def test_an_entry_that_is_cut_short_ends_the_run(tmp_path: Path, format: str) -> None:
    whole = genes(format)
    path = tmp_path / "genome"
    for end in (len(whole) // 3, whole.index(b"atgaaagtt", len(whole) // 2) + 30, len(whole.rstrip()) - 2):
        path.write_bytes(whole[:end])
        called = {"genbank": "GenBank", "embl": "EMBL"}[format]
        said = split(tmp_path, path, code=65)
        *warnings, error = said.splitlines()
        assert error.startswith(f"split_fasta.py: error: {path}: cannot be read as {called} after ")
        assert all(line.startswith(f"warning: {path}: ") for line in warnings)
        assert list((tmp_path / "split").iterdir()) == []


def test_a_genome_without_genes(tmp_path: Path) -> None:
    path, other = tmp_path / "genome.gb", tmp_path / "other.fasta"
    stream = io.StringIO()
    SeqIO.write(SeqRecord(Seq("ACGT"), "N", "N", annotations={"molecule_type": "DNA"}), stream, "genbank")
    path.write_text(stream.getvalue())
    other.write_text(">a\nMK\n")
    assert f"error: {path}: no sequence in the input" in split(tmp_path, path, code=65)
    assert f"warning: {path}: no annotated protein (CDS) in it" in split(tmp_path, path, other)


@pytest.mark.parametrize("name", ["uniprot", "uniprot xml", "genpept"])
def test_entries_that_are_proteins(tmp_path: Path, name: str) -> None:
    path = tmp_path / "entries"
    path.write_bytes(TEXTS[name][0])
    split(tmp_path, path)
    assert list(sequences(tmp_path).values()) == SEQUENCES


def test_a_release_file_of_genbank(tmp_path: Path) -> None:
    path = tmp_path / "gbvrl1.seq"
    path.write_bytes(b"GBVRL1.SEQ          Genetic Sequence Data Bank\n\n   2 loci\n\n" + genes("genbank"))
    split(tmp_path, path)
    assert sequences(tmp_path) == {"P0.1": SEQUENCES[0], "P1.1": SEQUENCES[1]}


ROWS = [
    *(("P1", "MKVLAAGHEW"), ("two words", "mki lsa\nghew*"), ("", "MWW")),
    *(("bad", "MK7"), ("mark", "M>K"), ("none", "")),
]
KEPT = {"P1": "MKVLAAGHEW", "two": "MKILSAGHEW", "": "MWW"}
REASONS = [
    "4\t3\tbad\tsymbol '7' in the sequence",
    "5\t4\tmark\tsymbol '?' in the sequence",
    "6\t5\tnone\tno residue left",
]


def text_table(delimiter: str, end: str) -> bytes:
    cells = [("more", "name", "seq"), *(("x", name, f'"{text}"') for name, text in ROWS)]
    return "".join(delimiter.join(row) + end for row in cells).encode()


def parquet(schema: pa.Schema) -> bytes:
    names, texts = zip(*ROWS, strict=True)
    sink = pa.BufferOutputStream()
    columns = [pa.array([name or None for name in names], pa.string()), pa.array([text or None for text in texts])]
    pq.write_table(pa.table(columns, schema.names).cast(schema), sink)
    return sink.getvalue().to_pybytes()


TABLES = {
    "tsv": text_table("\t", "\n"),
    "csv": text_table(",", "\r\n"),
    "csv of Excel": b"\xef\xbb\xbf" + text_table(";", "\r\n"),
    "csv of an old Mac": text_table(",", "\r"),
    "tsv in gzip": gzip.compress(text_table("\t", "\n")),
    "parquet": parquet(pa.schema({"name": pa.string(), "seq": pa.string()})),
    "parquet of pandas": parquet(pa.schema({"name": pa.large_string(), "seq": pa.large_string()})),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path: Path, name: str) -> None:
    path = tmp_path / "table"
    path.write_bytes(TABLES[name])
    split(tmp_path, *COLUMNS, path)
    assert sequences(tmp_path) == KEPT
    assert [row["id"] for row in ledger(tmp_path)] == ["P1", "two", "", "bad", "mark", "none"]
    assert ledger(tmp_path)[1]["description"] == "words"
    # The header, and the line break in the second row's sequence.
    before = 0 if "parquet" in name else 2
    expected = [f"{path}\t{int(line[0]) + before}{line[1:]}" for line in REASONS]
    assert (tmp_path / "split" / "rejected.tsv").read_text().splitlines()[1:] == expected


BROKEN = [
    ("more", "name", "seq"),
    ("two\nlines", "good", "MKVL\nAAGH\nEW"),
    ("", "early", "MK7"),
    None,
    ("three\n\nlines", "late\nword", "MK\nVL\nAA\n7"),
    None,
    None,
    ("", "next", "MK7"),
    ("", "last", "MWW"),
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("rows", [0, 4000])
@pytest.mark.parametrize("blank", [0, 2])
def test_lines_of_rows_that_span_several(tmp_path: Path, end: str, rows: int, blank: int) -> None:
    """Of a table of more than a block too; blank lines before the first row count as well."""
    many = [("", f"n{i}", "MKVLAAGHEW" * 60 + "\n" + "W" * (i % 7)) for i in range(rows)]
    given = [BROKEN[0], *[None] * blank, *many, *BROKEN[1:], ("", "more", "MK7\n")]
    text, begins = "", {}
    for row in given:
        begins[row[1] if row else ""] = text.count("\n") + 1
        text += ",".join('"' + cell.replace("\n", end) + '"' if cell else "" for cell in row or ()) + end
    (tmp_path / "table.csv").write_bytes(text.encode())
    split(tmp_path, *COLUMNS, tmp_path / "table.csv")
    rejected = [line.split("\t") for line in (tmp_path / "split" / "rejected.tsv").read_text().splitlines()[1:]]
    expected = [begins[name] for name in ("early", "late\nword", "next", "more")]
    assert [row[3] for row in rejected] == ["early", "late", "next", "more"]
    assert [int(row[1]) for row in rejected] == expected
    assert [line - 2 * rows - blank for line in expected] == [6, 8, 17, 19]
    assert sequences(tmp_path)["good"] == "MKVLAAGHEW"
    assert len(ledger(tmp_path)) == rows + 6


def test_numbers_are_ids(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": [7, 8], "seq": pa.array(SEQUENCES).dictionary_encode()}), tmp_path / "table")
    split(tmp_path, *COLUMNS, tmp_path / "table")
    assert sequences(tmp_path) == {"7": SEQUENCES[0], "8": SEQUENCES[1]}


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"id\tseq\na\tMK\n", 2, "--id_column name: {path} has the columns id, seq"),
        (b"name,sequence\na,MK\n", 2, "--sequence_column seq: {path} has the columns name, sequence"),
        (b"name,seq,seq\na,MK,MV\n", 2, "--sequence_column seq: {path} has several of that name"),
        (b"name,seq\na,MK\nb\n", 65, "{path}, line 3: 1 cells, but 2 columns; correct or remove the row"),
        (b"name,seq\na,MK\nb,MK,c\n", 65, "{path}, line 3: 3 cells, but 2 columns; correct or remove the row"),
        (b'name,seq\na,"MK\nV"\n\nb,"M\nK",c\n', 65, "{path}, line 5: 3 cells, but 2 columns; correct or remove the"),
        (b'name,seq,more\na,MK,x\nb,MKV,"open\nc,MW,x\nd,MY,x\n', 65, "{path}, line 3: quotes that do not fit"),
        (b'name,more,seq\na,x,MK\nb,"one,MKV\nc,"two,MW\nd,x,MY\n', 65, "{path}, line 3: quotes that do not fit"),
        (b'name\tmore\tseq\nb\t"one\tMKV\nc\ttwo"\tMW\n', 65, "{path}, line 2: quotes with a tab and a line break"),
        (b'name\tseq\t"more\na\tMK\t"\nb\tMKV\tx\n', 65, "{path}, line 1: quotes with a tab and a line break"),
        (b"M" * 200_000, 65, "{path}, line 1: sequences without headers, not FASTA"),
        (b"name,seq\n\n" + b"a,ACGTACGTACGT\n" * 9, 65, "{path}, line 3: nucleotide sequences (108 of the first"),
        (b"name,seq\n" + b"a,ACGTACGTACGT\n" * 9, 65, "{path}, line 2: nucleotide sequences (108 of the first 108"),
        (parquet(pa.schema({"name": pa.string(), "seq": pa.binary()})), 2, "seq: {path} has binary in it, no text"),
        (parquet(pa.schema({"name": pa.string(), "s": pa.string()})), 2, "column seq: {path} has the columns name, s"),
        (TABLES["parquet"][:-9], 65, "{path}: unreadable"),
        (b"whatever this is\n", 65, "{path}, line 1: not FASTA"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, content: bytes, code: int, message: str) -> None:
    path = tmp_path / "table"
    path.write_bytes(content)
    said = split(tmp_path, *COLUMNS, path, code=code)
    assert message.format(path=path) in said and len(said.splitlines()) == 1
    assert list((tmp_path / "split").iterdir()) == []


def test_nucleotides_may_be_peptides(tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b"name,seq\n" + b"a,ACGTACGTACGT\n" * 9)
    split(tmp_path, *COLUMNS, "--alphabet=protein", tmp_path / "table")
    assert sequences(tmp_path) == {"a": "ACGTACGTACGT"}


def test_columns_come_together(tmp_path: Path) -> None:
    said = split(tmp_path, "--id-column=name", tmp_path / "table", code=2)
    assert "--id_column and --sequence_column say what a table's columns hold; give both" in said


def test_all_kinds_in_a_folder_are_what_the_same_proteins_are_as_fasta(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    (inputs / "nested").mkdir(parents=True)
    (inputs / ".hidden").write_text("no input")
    (inputs / "a.fasta").write_text(">f\nMKKK\n")
    (inputs / "b.gb").write_bytes(genome("genbank"))
    (inputs / "c.tsv").write_bytes(TABLES["tsv"])
    (inputs / "d.parquet").write_bytes(TABLES["parquet"])
    (inputs / "e.dat").write_bytes(TEXTS["uniprot"][0])
    split(tmp_path, *COLUMNS, inputs)
    proteins = [("f", "MKKK"), *PROTEINS.items(), ("T_8", ""), *ROWS, *ROWS, *zip("ab", SEQUENCES, strict=True)]
    (tmp_path / "fasta").mkdir()
    proteins[3] = "NC_1.1_3", "MK*V"
    text = "".join(f">{name}\n{sequence.replace('>', '?')}\n" for name, sequence in proteins)
    (tmp_path / "fasta" / "all.fasta").write_text(text)
    split(tmp_path / "fasta", tmp_path / "fasta" / "all.fasta")
    facts = ("ordinal", "length", "unknown_residues", "status", "reason", "sequence_key", "unique_index", "shard")
    one, other = ([[row[name] for name in facts] for row in ledger(each)] for each in (tmp_path, tmp_path / "fasta"))
    assert one == other and len(one) == 23
    shards = [sorted((each / "split" / "shards").iterdir()) for each in (tmp_path, tmp_path / "fasta")]
    assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]
    assert [row["file"] for row in ledger(tmp_path)] == [
        str(inputs / name)
        for name, count in (("a.fasta", 1), ("b.gb", 8), ("c.tsv", 6), ("d.parquet", 6), ("e.dat", 2))
        for _ in range(count)
    ]


def test_a_folder_without_files(tmp_path: Path) -> None:
    (tmp_path / "folder" / "nested").mkdir(parents=True)
    assert f"{tmp_path / 'folder'}: a folder without files" in split(tmp_path, tmp_path / "folder", code=66)
