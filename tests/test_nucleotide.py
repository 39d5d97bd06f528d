"""Nucleotides are refused, proteins of A, C, G, T and N are not, and ``--alphabet protein`` has the last word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from descriptions import describe
from foreign_files import COMPRESSORS, write

from virnucpro.errors import ExitCode, FastaFormatError
from virnucpro.fasta import read_records
from virnucpro.fasta_source import FastaSource

PROJECT = Path(__file__).parents[1]
GENES = ">gene1\n" + "ATGGCGTACGTTAGCNNN" * 20 + "\n>gene2\nATGACCTGA\n"
RNA = ">rna\n" + "augcc" * 20 + "\n"
CODES = ">gene\n" + ("ACGTACGTACGTACGTACGTACGT" + "R") * 40 + "\n"
REPEATS = ">silk\n" + "GAGAGA" * 10 + "\n"
PEPTIDES = ">a\nGATTACA\n>b\nCATAGAT\n>c\nNANTACG\n>d\nAGAGATT\n"


def is_refused(path: Path) -> bool:
    """What both readers say."""
    verdicts = set()
    for read in (
        lambda: list(read_records(path, refuse_nucleotide=True)),
        FastaSource(path, expected="protein").plain_file,
    ):
        try:
            read()
            verdicts.add(False)
        except FastaFormatError as error:
            assert "letters are A, C, G, T, U or N); give --translate genes or --translate six_frame" in str(error)
            assert "--alphabet protein" in str(error)
            verdicts.add(True)
    assert len(verdicts) == 1
    return verdicts.pop()


@pytest.mark.parametrize(
    "text", [GENES, RNA, CODES, REPEATS, PEPTIDES], ids=["dna", "rna", "codes", "repeats", "peptides"]
)
def test_nucleotides_and_what_cannot_be_told_from_them(text: str, tmp_path: Path) -> None:
    assert is_refused(write(tmp_path, "in", text.encode()))


@pytest.mark.parametrize("letter", "EFILPQefilpq")
@pytest.mark.parametrize("text", [REPEATS, PEPTIDES, GENES], ids=["repeats", "peptides", "dna"])
def test_one_letter_that_no_nucleotide_has(text: str, letter: str, tmp_path: Path) -> None:
    assert not is_refused(write(tmp_path, "in", (text + f">last\nGA{letter}TA\n").encode()))


@pytest.mark.parametrize("letter", "RYSWKMBDHVX")
def test_letters_that_nucleotides_have_too(letter: str, tmp_path: Path) -> None:
    assert is_refused(write(tmp_path, "in", (GENES + f">last\nGA{letter}TA\n").encode()))


def test_headers_and_comments_are_no_letters(tmp_path: Path) -> None:
    assert is_refused(write(tmp_path, "in", GENES.replace("gene", "FILE LEFT ").encode()))
    assert is_refused(write(tmp_path, "in", GENES.replace(">gene2", ";FILE\n>gene2").encode()))


def test_too_few_letters_for_a_verdict(tmp_path: Path) -> None:
    assert not is_refused(write(tmp_path, "in", b">a\nGATTACAGATTACAGATTA\n"))
    assert is_refused(write(tmp_path, "in", b">a\nGATTACAGATTACAGATTAC\n"))


def test_only_the_first_letters_count(tmp_path: Path) -> None:
    """A file of genes with proteins far behind them is one of genes."""
    genes = b">gene\n" + b"ACGT" * 2500 + b"\n"
    assert is_refused(write(tmp_path, "in", genes + b">protein\nMKVLFEQ\n"))
    assert not is_refused(write(tmp_path, "in", genes.replace(b"ACGT", b"ACGF", 1) + genes))


def split(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    describe().write(folder / "model.json")
    command = [
        sys.executable,
        str(PROJECT / "bin" / "split_fasta.py"),
        "--model-json",
        "model.json",
        "--outdir",
        "split",
    ]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("compressor", [None, "xz"])
def test_each_file_of_a_split_is_looked_at(compressor: str | None, tmp_path: Path) -> None:
    write(tmp_path, "proteins", b">a\nMKVLAAGHEWFILPQ\n>b\nMKVLAAGHEWFILPQQ\n")
    genes = GENES.encode()
    write(tmp_path, "genes", COMPRESSORS[compressor](genes) if compressor else genes)
    done = split(tmp_path, "proteins.fasta", "genes.fasta")
    assert done.returncode == ExitCode.BAD_DATA
    assert done.stderr.startswith(
        "split_fasta.py: error: genes.fasta, line 1: nucleotide sequences (369 of the first 369"
    )
    assert not (tmp_path / "split" / "manifest.parquet").exists()


@pytest.mark.parametrize("text", [REPEATS, PEPTIDES, GENES], ids=["repeats", "peptides", "dna"])
def test_the_user_has_the_last_word(text: str, tmp_path: Path) -> None:
    write(tmp_path, "in", text.encode())
    assert split(tmp_path, "in.fasta", "--alphabet", "auto").returncode == ExitCode.BAD_DATA
    done = split(tmp_path, "in.fasta", "--alphabet", "protein")
    assert done.returncode == 0, done.stderr
    shard = list(read_records(tmp_path / "split" / "shards" / "shard-00000.fasta"))
    given = list(read_records(tmp_path / "in.fasta"))
    assert sorted(record.sequence for record in shard) == sorted(record.sequence for record in given)


def test_a_file_of_both_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path, "in", (">protein\nMKVLFEQ\n" + GENES).encode())
    done = split(tmp_path, "in.fasta")
    assert done.returncode == 0, done.stderr
    assert "3 records, 376 residues" in done.stdout


def test_other_alphabets_are_refused(tmp_path: Path) -> None:
    done = split(tmp_path, "in.fasta", "--alphabet", "dna")
    assert done.returncode == ExitCode.USAGE
    assert "'auto', 'protein'" in done.stderr
