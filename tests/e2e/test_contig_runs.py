"""Genomes and contigs to embeddings, through the whole pipeline."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import xxhash
from launch import MODEL, PROJECT, launch
from real_genomes import CONTIGS, FOLDER, GENOMES, annotated_proteins, called

pytestmark = pytest.mark.one_engine
COMMON = ("--model", MODEL, "--long_sequences", "full", "--report", "false")


def key(protein: str) -> str:
    return xxhash.xxh3_128_hexdigest(protein.removesuffix("*").replace("*", "X").encode())


def verify(results: Path) -> None:
    program = [sys.executable, str(PROJECT / "bin" / "verify.py"), str(results)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "whole: " in done.stdout, done.stderr


def test_proteins_of_ten_genomes_are_biopythons(tmp_path: Path) -> None:
    assert len(GENOMES) == 10
    run = launch(tmp_path, "--input", f"{FOLDER}/*.gb.gz", *COMMON[:2], "--report", "false", may_warn=True)
    assert run.code == 0, run.output
    table = pq.read_table(run.results / "manifest.parquet")
    proteins = annotated_proteins()
    assert table["sequence_key"].to_pylist() == [key(each[:1022]) for each in proteins] and len(proteins) > 90
    vectors = pq.read_table(run.results / "embeddings")
    assert len(vectors) == len(proteins) and vectors["embedding"].null_count == 0
    verify(run.results)


def test_genes_of_a_metagenomes_contigs_are_pyrodigals(tmp_path: Path) -> None:
    inputs = f"{CONTIGS},{FOLDER / 'NC_001422.gb.gz'}"
    options = ("--translate", "genes", "--min_contig", "6000", *COMMON[:2], "--report", "false")
    run = launch(tmp_path, "--input", inputs, *options)
    assert run.code == 0, run.output
    expected = called(tmp_path, [CONTIGS])
    table = pq.read_table(run.results / "embeddings")
    places = [table[name].to_pylist() for name in ("id", "start", "end", "strand", "sequence_key")]
    assert list(zip(*places, strict=True)) == [(*each[:4], key(each.protein[:1022])) for each in expected]
    assert table["embedding"].null_count == 0
    counts = Counter(table["contig"].to_pylist())
    assert len(counts) == 3 and min(counts.values()) > 30
    (rejected,) = (run.results / "rejected.tsv").read_text().splitlines()[1:]
    assert rejected.split("\t")[3:] == ["NC_001422.1", "contig of 5386 nucleotides, below --min_contig 6000"]
    assert set(table["frame"].to_pylist()) == {1, 2, 3}
    verify(run.results)


def test_six_frames(tmp_path: Path) -> None:
    lines = [">short of a lake", "ACGT", ">a", "GCC" * 120, ">b", "TAA" + "GCC" * 119]
    (tmp_path / "in.fasta").write_text("\n".join(lines) + "\n")
    options = ("--translate", "six_frame", "--chunk", "300", "--min_contig", "5", "--genetic_code", "11")
    run = launch(tmp_path, "--input", "in.fasta", *options, *COMMON)
    assert run.code == 0, run.output
    table = pq.read_table(run.results / "embeddings")
    ids = [f"{contig}_chunk_{chunk}{frame}" for contig in "ab" for chunk in (1, 2) for frame in FRAMES]
    ids.remove("b_chunk_1F1")
    assert table["id"].to_pylist() == ids
    assert "1 frame with a stop left out" in run.output
    assert (run.results / "rejected.tsv").read_text().splitlines()[1].split("\t")[1:] == [
        *("1", "0", "short", "contig of 4 nucleotides, below --min_contig 5")
    ]
    assert (table["start"][6].as_py(), table["end"][6].as_py()) == (61, 360)
    verify(run.results)


FRAMES = ("F1", "F2", "F3", "R1", "R2", "R3")


def test_dna_and_proteins_are_told_apart(tmp_path: Path) -> None:
    run = launch(tmp_path, "--input", CONTIGS, *COMMON)
    assert run.code == 65 and "--translate genes or --translate six_frame" in run.last_lines
    (tmp_path / "proteins.fasta").write_text(">a\nMKVLFEQPILAAGHEW\n")
    run = launch(tmp_path, "--input", "proteins.fasta", "--translate", "genes", *COMMON)
    assert run.code == 65 and "protein sequences (" in run.last_lines and "leave --translate out" in run.last_lines
