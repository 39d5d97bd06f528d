"""Contigs to proteins, by the program that the pipeline's task runs; references are other programs' own answers."""

from __future__ import annotations

import bz2
import gzip
import io
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from Bio import SeqIO
from Bio.Data.CodonTable import unambiguous_dna_by_id
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from foreign_files import FASTA, TEXTS
from real_genomes import CONTIGS, GENOMES, Call, called, entries, unpacked
from split_program import ledger, split

from virnucpro.config import GENETIC_CODES
from virnucpro.split.six_frame import chunk_starts

TABLE = ("--id-column=name", "--sequence-column=seq")
PLACE = ("contig", "strand", "frame", "start", "end")


def proteins(folder: Path) -> list[str]:
    """The sequences of the records that are not rejected, in the input's order."""
    lines = [line for path in sorted((folder / "split" / "shards").iterdir()) for line in path.read_text().split()]
    by_index = dict(zip(lines[::2], lines[1::2], strict=True))
    return [by_index[f">{row['unique_index']}"] for row in ledger(folder) if row["status"] != "rejected"]


def calls(folder: Path) -> list[Call]:
    """Every gene of a split, as ``called`` tells of them."""
    rows = [row for row in ledger(folder) if row["status"] != "rejected"]
    facts = ([row[name] for name in ("id", "start", "end", "strand")] for row in rows)
    return [Call(*each, protein) for each, protein in zip(facts, proteins(folder), strict=True)]


def translated(contig: str, row: dict[str, Any], table: int = 1) -> str:
    """The protein of a row by its coordinates, by Biopython."""
    piece = Seq(contig[row["start"] - 1 : row["end"]].upper())
    return plain((piece if row["strand"] == "+" else piece.reverse_complement()).translate(table))


def plain(protein: Seq) -> str:
    """Biopython's, which knows letters for two amino acids, in ours, which are the model's."""
    return str(protein).translate(str.maketrans("BJZ", "XXX"))


def contigs(seed: int, lengths: list[int], letters: str = "ACGT" * 20 + "NRYSWKMBDHVU") -> dict[str, str]:
    chance = random.Random(seed)
    return {f"c{i}": "".join(chance.choices(letters, k=length)) for i, length in enumerate(lengths)}


def fasta(sequences: dict[str, str], width: int = 70) -> bytes:
    lines: list[str] = []
    for name, text in sequences.items():
        lines += [f">{name} of a lake", *(text[i : i + width] for i in range(0, len(text), width))]
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    return called(tmp_path_factory.mktemp("called"), [CONTIGS])


@pytest.mark.parametrize("form", ["gzip", "plain", "bzip2", "crlf", "lower case", "one line", "rna"])
def test_genes_are_those_of_pyrodigals_command_line(tmp_path: Path, expected: list[Call], form: str) -> None:
    text = unpacked(CONTIGS)
    forms = {
        "gzip": gzip.compress(text.encode()),
        "plain": text.encode(),
        "bzip2": bz2.compress(text.encode()),
        "crlf": text.replace("\n", "\r\n").encode(),
        "lower case": "".join(line if line[0] == ">" else line.lower() for line in text.splitlines(True)).encode(),
        "one line": "".join(f">{each.id}\n{each.seq}\n" for each in SeqIO.parse(io.StringIO(text), "fasta")).encode(),
        "rna": "".join(line if line[0] == ">" else line.replace("T", "U") for line in text.splitlines(True)).encode(),
    }
    (tmp_path / "contigs").write_bytes(forms[form])
    split(tmp_path, "--translate=genes", "--no-dedup", "--long-sequences=full", tmp_path / "contigs")
    assert calls(tmp_path) == expected
    assert len(expected) == 307


def test_genes_of_genbanks_sequences(tmp_path: Path) -> None:
    """What is annotated on them does not matter."""
    genomes = entries()
    for genome in genomes:
        SeqIO.write(genome, tmp_path / f"{genome.id}.fna", "fasta")
    bare = SeqRecord(genomes[0].seq, "X1", annotations={"molecule_type": "DNA"})
    SeqIO.write(bare, tmp_path / "bare.embl", "embl")
    files = [tmp_path / f"{genome.id}.fna" for genome in genomes]
    split(tmp_path, "--translate=genes", "--no-dedup", "--long-sequences=full", *GENOMES, tmp_path / "bare.embl")
    found = calls(tmp_path)
    assert [each for each in found if not each.id.startswith("X1")] == called(tmp_path, files)
    again = [each[1:] for each in found if each.id.startswith(genomes[0].id)]
    assert [each[1:] for each in found if each.id.startswith("X1")] == again and len(again) > 5


def test_where_genes_lie(tmp_path: Path) -> None:
    split(tmp_path, "--translate=genes", "--long-sequences=full", CONTIGS)
    texts = {each.id: str(each.seq) for each in SeqIO.parse(io.StringIO(unpacked(CONTIGS)), "fasta")}
    rows = ledger(tmp_path)
    frames = set()
    for row, protein in zip(rows, proteins(tmp_path), strict=True):
        assert row["id"].rpartition("_")[0] == row["contig"]
        table = int(row["description"].rpartition("transl_table=")[2])
        whole = translated(texts[row["contig"]], row, table)
        # The first residue is a start codon's, unless the gene runs off the contig.
        assert whole.removesuffix("*")[1:] == protein[1:]
        frames.add((row["strand"], row["frame"]))
        length = len(texts[row["contig"]])
        assert row["frame"] == ((row["start"] - 1) if row["strand"] == "+" else length - row["end"]) % 3 + 1
    assert len(frames) == 6


def six_frames(name: str, text: str, chunk: int, table: int) -> Iterator[tuple[str, str | None]]:
    """Ids and proteins of VirNucPro's method, written with Biopython; no protein where there is a stop."""
    text = text.upper()
    count = max(1, -(-len(text) // chunk))
    overlap, longer = divmod(count * chunk - len(text), max(count - 1, 1))
    start = 0
    for number in range(count):
        piece = Seq(text[start : start + chunk])
        for letter, strand in (("F", piece), ("R", piece.reverse_complement())):
            for frame in range(3):
                codons = strand[frame : len(strand) - (len(strand) - frame) % 3]
                if codons:
                    protein = plain(codons.translate(table))
                    yield f"{name}_chunk_{number + 1}{letter}{frame + 1}", None if "*" in protein else protein
        start += chunk - overlap - (number < longer)


@pytest.mark.parametrize(("chunk", "table"), [(500, 1), (300, 1), (60, 11), (40, 4), (30, 25), (7, 31)])
def test_six_frames_are_biopythons(tmp_path: Path, chunk: int, table: int) -> None:
    lengths = [1, 2, 3, 4, chunk - 1, chunk, chunk + 1, 2 * chunk, 2 * chunk + 1, 3 * chunk - 2, 5 * chunk + 7, 5000]
    given = contigs(chunk, lengths)
    (tmp_path / "in.fasta").write_bytes(fasta(given))
    options = (f"--chunk={chunk}", f"--genetic-code={table}", "--no-dedup")
    said = split(tmp_path, "--translate=six_frame", *options, tmp_path / "in.fasta")
    reference = {name: list(six_frames(name, text, chunk, table)) for name, text in given.items()}
    expected = [pair for pairs in reference.values() for pair in pairs if pair[1]]
    rows = [row for row in ledger(tmp_path) if row["status"] != "rejected"]
    assert list(zip([row["id"] for row in rows], proteins(tmp_path), strict=True)) == expected
    stopped = sum(protein is None for pairs in reference.values() for _, protein in pairs)
    assert (f"\n{stopped} frames with a stop left out\n" in said) == (table != 31)
    for row, (_, protein) in zip(rows, expected, strict=True):
        assert translated(given[row["contig"]], row, table) == protein
        assert row["id"].startswith(f"{row['contig']}_chunk_")
    none = [name for name, pairs in reference.items() if not any(protein for _, protein in pairs)]
    rejected = [row for row in ledger(tmp_path) if row["status"] == "rejected"]
    assert [row["id"] for row in rejected] == none
    assert {row["reason"] for row in rejected if len(given[row["id"]]) > 2} <= {"no frame without a stop"}
    assert [[row[name] for name in PLACE] for row in rejected] == [[name, None, None, None, None] for name in none]


@pytest.mark.parametrize("chunk", [1, 3, 300, 500])
def test_chunks_are_whole_and_spread_evenly(chunk: int) -> None:
    for length in [*range(1, 40), *range(chunk, 12 * chunk, 37), 10**6 + 1]:
        starts = chunk_starts(length, chunk)
        if length <= chunk:
            assert starts == [0]
            continue
        steps = [after - before for before, after in pairwise(starts)]
        assert starts[0] == 0 and starts[-1] + chunk == length
        assert max(steps) - min(steps) <= 1 and max(steps) <= chunk
        assert steps == sorted(steps) and len(starts) == -(-length // chunk)


def test_a_codon_that_is_ambiguous(tmp_path: Path) -> None:
    # GCN A, TTY F, MGR R, RAY D or N, NNN any, TRR stop or W; TAR is a stop in all its readings.
    (tmp_path / "in.fasta").write_text(">a\nGCNTTYMGRRAYNNNTRRATG\n>b\nGCNTARATG\n")
    split(tmp_path, "--translate=six_frame", tmp_path / "in.fasta")
    by_id = dict(zip([row["id"] for row in ledger(tmp_path)], proteins(tmp_path), strict=True))
    assert by_id["a_chunk_1F1"] == "AFRXXXM" and "b_chunk_1F1" not in by_id


def test_genetic_codes_are_biopythons() -> None:
    assert sorted(unambiguous_dna_by_id) == list(GENETIC_CODES)


def test_contigs_that_are_left_out_have_a_row(tmp_path: Path) -> None:
    text = contigs(1, [600, 299], "ACGT")
    lines = [">long one", text["c0"], ">short one", text["c1"], ">none", ">odd", "ACGT" * 90 + "7", ">gap", "ACG-" * 90]
    (tmp_path / "in.fasta").write_text("\n".join(lines) + "\n")
    said = split(tmp_path, "--translate=six_frame", "--min-contig=300", "--chunk=60", tmp_path / "in.fasta")
    rejected = (tmp_path / "split" / "rejected.tsv").read_text().splitlines()[1:]
    first = next(i for i, row in enumerate(ledger(tmp_path)) if row["status"] == "rejected")
    assert [line.split("\t")[1:] for line in rejected] == [
        ["3", str(first), "short", "contig of 299 nucleotides, below --min_contig 300"],
        ["5", str(first + 1), "none", "no nucleotide left"],
        ["6", str(first + 2), "odd", "symbol '7' in the contig"],
        ["8", str(first + 3), "gap", "symbol '-' in the contig"],
    ]
    assert "4 records rejected: see rejected.tsv" in said
    assert ledger(tmp_path)[first]["description"] == "one"


@pytest.mark.parametrize("mode", ["genes", "six_frame"])
def test_a_contig_shorter_than_a_codon_is_told_as_such(tmp_path: Path, mode: str) -> None:
    (tmp_path / "in.fasta").write_text(">one\nA\n>two\nA-\n>pair\nAU\n")
    split(tmp_path, f"--translate={mode}", tmp_path / "in.fasta", CONTIGS)
    rejected = (tmp_path / "split" / "rejected.tsv").read_text().splitlines()[1:4]
    assert [line.split("\t")[3:] for line in rejected] == [
        ["one", "contig of 1 nucleotide, too short to translate"],
        ["two", "symbol '-' in the contig"],
        ["pair", "contig of 2 nucleotides, too short to translate"],
    ]


def test_a_contig_without_genes(tmp_path: Path) -> None:
    (tmp_path / "in.fasta").write_text(">a\n" + "ACGTACGT" * 9 + "\n")
    split(tmp_path, "--translate=genes", CONTIGS, tmp_path / "in.fasta")
    assert [ledger(tmp_path)[-1][name] for name in ("id", "contig", "reason")] == ["a", "a", "no gene found"]
    said = split(tmp_path, "--translate=genes", "--strict", tmp_path / "in.fasta", code=65)
    assert "in.fasta, line 1: record 'a': no gene found" in said


@pytest.mark.parametrize("options", [["--translate=genes"], ["--translate=six_frame", "--chunk=100"]])
def test_any_number_of_processes_and_any_file_give_the_same(tmp_path: Path, options: list[str]) -> None:
    """More than a block of contigs, and each of them twice: duplicates are found, in order."""
    whole = str(next(SeqIO.parse(io.StringIO(unpacked(CONTIGS)), "fasta")).seq)
    once = {f"c{i}": whole[i * 7 : i * 7 + 2000] for i in range(400)}
    (tmp_path / "in.fasta").write_bytes(fasta(once | {f"again_{name}": text for name, text in once.items()}))
    (tmp_path / "in.fasta.gz").write_bytes(gzip.compress((tmp_path / "in.fasta").read_bytes()))
    assert (tmp_path / "in.fasta").stat().st_size > 4 << 18
    found = []
    for cpus, name in ((1, "in.fasta"), (2, "in.fasta"), (2, "in.fasta.gz")):
        split(tmp_path, *options, f"--cpus={cpus}", tmp_path / name)
        shards = [path.read_bytes() for path in sorted((tmp_path / "split" / "shards").iterdir())]
        found.append(([{**row, "file": ""} for row in ledger(tmp_path)], shards))
    assert found[0] == found[1] == found[2]
    rows = found[0][0]
    half = len(rows) // 2
    assert [row["id"] for row in rows[half:]] == [f"again_{row['id']}" for row in rows[:half]]
    assert [row["sequence_key"] for row in rows[half:]] == [row["sequence_key"] for row in rows[:half]]
    assert {row["status"] for row in rows[half:]} <= {"duplicate", "rejected"}


def test_a_table_of_contigs(tmp_path: Path) -> None:
    (tmp_path / "table.tsv").write_text("name\tseq\na\t" + "ATGAAATGG" * 9 + "\n")
    split(tmp_path, "--translate=six_frame", *TABLE, tmp_path / "table.tsv")
    assert ledger(tmp_path)[0]["id"] == "a_chunk_1F1" and proteins(tmp_path)[0] == "MKW" * 9


def test_faults_of_contigs_are_told_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "in.fasta").write_text("# comment\n>a\nACGT\nACG>b\nACGT\n")
    said = split(tmp_path, "--translate=genes", tmp_path / "in.fasta", code=65)
    assert "in.fasta, line 4: '>' inside a sequence line" in said


@pytest.mark.parametrize(
    ("content", "options", "code", "message"),
    [
        (FASTA, ["genes"], 65, "line 1: protein sequences (5 of the first 20 letters are E, F, I, L, P or Q); leave"),
        (b"name,seq\na,MKLLFEQPIL\n", ["genes", *TABLE], 65, "line 2: protein sequences ("),
        (TEXTS["uniprot"][0], ["six_frame"], 65, "UniProt text of proteins; leave --translate out"),
        (TEXTS["genpept"][0], ["six_frame"], 65, "GenBank of proteins; leave --translate out"),
        (b">a\n" + b"ACGT" * 99, [], 65, "give --translate genes or --translate six_frame, or --alphabet protein if"),
        (b"", ["genes", "--alphabet=protein"], 2, "--alphabet protein says that the input is no DNA; leave it or"),
        (b"", ["--chunk=300"], 2, "--chunk and --genetic_code are of --translate six_frame; give it too, or"),
        (b"", ["genes", "--genetic-code=4"], 2, "--chunk and --genetic_code are of --translate six_frame; give it"),
        (b"", ["--min-contig=300"], 2, "--min_contig is of --translate genes and six_frame; give one too, or"),
        (b"", ["six_frame", "--genetic-code=7"], 2, "--genetic_code is 7, but must be one of NCBI's: 1, 2, 3,"),
        (b"", ["six_frame", "--chunk=2"], 2, "--chunk is 2, but must be at least 3"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: bytes, options: list[str], code: int, message: str) -> None:
    (tmp_path / "in.fasta").write_bytes(content)
    arguments = [each if each.startswith("--") else f"--translate={each}" for each in options]
    said = split(tmp_path, *arguments, tmp_path / "in.fasta", code=code)
    assert message in said and len(said.splitlines()) == 1


def test_a_genome_without_genes_names_both_ways(tmp_path: Path) -> None:
    record = SeqRecord(Seq("ACGT" * 30), "N", "N", annotations={"molecule_type": "DNA"})
    SeqIO.write(record, tmp_path / "bare.gb", "genbank")
    (tmp_path / "other.fasta").write_text(">a\nMK\n")
    for inputs, code in (((tmp_path / "bare.gb",), 65), ((tmp_path / "bare.gb", tmp_path / "other.fasta"), 0)):
        assert "--translate genes or --translate six_frame" in split(tmp_path, *inputs, code=code)
