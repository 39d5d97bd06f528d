"""What users bring as FASTA, through the whole pipeline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from foreign_files import COMPRESSORS, FASTA, SEQUENCES, genes, write
from launch import MODEL, PROJECT, ask, launch, refusals

from virnucpro.path_lists import sheet_rows

pytestmark = pytest.mark.one_engine


def test_four_compressions_and_peptides_that_look_like_dna(tmp_path: Path) -> None:
    peptides = {"gzip": "GATTACAGATTACAGATTACA", "bzip2": "CATAGATTA", "xz": "NANTACG", "zstd": "AGAGATT"}
    for name, peptide in peptides.items():
        write(tmp_path, name, COMPRESSORS[name](f">{name}\n{peptide}\n".encode()))
    names = ",".join(f"{name}.fasta" for name in peptides)
    run = launch(tmp_path, "--input", names, "--model", MODEL, "--alphabet", "protein", "--report", "false")
    assert run.code == 0, run.output
    table = pq.read_table(run.results / "embeddings")
    assert table["id"].to_pylist() == list(peptides)
    assert table["length"].to_pylist() == [len(peptide) for peptide in peptides.values()]
    assert table["embedding"].null_count == 0


def test_a_folder_of_annotated_genomes_tables_and_fasta(tmp_path: Path) -> None:
    folder = tmp_path / "inputs"
    (folder / "nested").mkdir(parents=True)
    (folder / ".hidden").touch()
    (folder / "a.gb").write_bytes(genes("genbank"))
    (folder / "b.fasta").write_bytes(FASTA)
    (folder / "c 1.tsv").write_text(f"Entry\tSequence\nt1\t{SEQUENCES[1]}\nt2\tMK7\n")
    options = ("--id_column", "Entry", "--sequence_column", "Sequence", "--report", "false")
    run = launch(tmp_path, "--input", "inputs", "--model", MODEL, *options)
    assert run.code == 0, run.output
    table = pq.read_table(run.results / "embeddings")
    assert table["id"].to_pylist() == ["P0.1", "P1.1", "a", "b", "t1"]
    first, second = table["embedding"][0], table["embedding"][1]
    assert table["embedding"].to_pylist() == [each.as_py() for each in (first, second, first, second, second)]
    (rejected,) = (run.results / "rejected.tsv").read_text().splitlines()[1:]
    assert rejected == f"{folder / 'c 1.tsv'}\t3\t5\tt2\tsymbol '7' in the sequence"
    assert {Path(each).name for each in pq.read_table(run.results / "manifest.parquet")["file"].to_pylist()} == {
        *("a.gb", "b.fasta", "c 1.tsv")
    }


#: Sheets with blanks, quotes and separators where people and spreadsheets put them.
SHEETS = (
    'sample;file\n"a;b" ; "c;d.fasta" \n',
    '"sample" , "file"\n  \n"a ""b"", c"  ,d"e.fasta\n"a"b"c,"d"\n',
    '\n sample\tnote\tfile\t\n"a\tb"\t\tc.fasta\t\r\n\tx\t\n',
    "file,sample\na.fasta,deep\u2028sea\n\u00e9.fasta\n",
)
READ_SHEETS = """
include {{ cellsOf }} from '{module}'

workflow {{
    def cases = new groovy.json.JsonSlurper().parseText(file('{cases}').text)
    file('{told}').text = groovy.json.JsonOutput.toJson(cases.collect {{ text -> cellsOf(text.readLines()) }})
}}
"""


def test_both_doors_read_a_sample_sheet_alike(tmp_path: Path) -> None:
    told = ask(tmp_path, READ_SHEETS, "sample_sheet", SHEETS)
    rows = [[dict(zip(cells[0], row, strict=False)) for row in cells[1:]] for cells in told]
    assert rows == [sheet_rows(text, tmp_path) for text in SHEETS]
    assert rows[0] == [{"sample": "a;b", "file": "c;d.fasta"}]
    assert rows[1] == [{"sample": 'a "b", c', "file": 'd"e.fasta'}, {"sample": 'ab"c', "file": "d"}]


def test_samples(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "a.gb").write_bytes(genes("genbank"))
    (tmp_path / "lake" / "b.fasta").write_text(">bad\nM7\n>c\nMKV\n")
    (tmp_path / "gut, upper.fasta").write_bytes(FASTA)
    rows = '\ufeffsample; file;;\r\nlake;lake;;\r\n"gut, upper";"gut, upper.fasta";;\r\n'
    (tmp_path / "samples.csv").write_bytes(rows.encode())
    run = launch(tmp_path, "--sample_sheet", "samples.csv", "--model", MODEL, "--report", "false")
    assert run.code == 0, run.output
    expected = [("P0.1", "lake"), ("P1.1", "lake"), ("c", "lake"), ("a", "gut, upper"), ("b", "gut, upper")]
    table = pq.read_table(run.results / "embeddings")
    assert list(zip(table["id"].to_pylist(), table["sample"].to_pylist(), strict=True)) == expected
    rows_of_ledger = pq.read_table(run.results / "manifest.parquet", columns=["id", "sample"]).to_pylist()
    assert {"id": "bad", "sample": "lake"} in rows_of_ledger and len(rows_of_ledger) == 6
    program = [sys.executable, str(PROJECT / "bin" / "verify.py"), str(run.results)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "whole: " in done.stdout, done.stderr


#: A sheet, and what is said of it.
NO_SHEETS = [
    ("sample,file\na,none.fasta\n", 66, "--sample_sheet none.fasta: no such file; check the path"),
    ("sample;path\na;in.fasta\n", 65, "--sample_sheet {}: no column file in its first line"),
    ("", 65, "--sample_sheet {}: a row without sample or file"),
    ("sample,file\ncaf\udce9,in.fasta\n", 65, "--sample_sheet {}: not a sample sheet in UTF-8"),
    ("sample,file\n", 65, "--sample_sheet {}: a row without sample or file"),
    ('sample,file\n"a\nb",in.fasta\n', 65, "--sample_sheet {}: a line that ends within quotes"),
    ("sample,file\na,in.fasta,b.fasta\n", 65, "--sample_sheet {}: a row with more cells than the header"),
]


def test_what_is_no_input(tmp_path: Path) -> None:
    """In one start. Of a link to nothing Nextflow itself says no word, and leaves its records out of a glob."""
    (tmp_path / "inputs").mkdir()
    for name in ("in.fasta", "inputs/a.fasta"):
        (tmp_path / name).write_bytes(FASTA)
    lost = tmp_path / "inputs" / "b.fasta"
    lost.symlink_to("moved.fasta")
    cases: list[list[str | None]] = [["inputs", None], ["inputs/*.fasta", None], ["in.fasta", "sheet0.csv"]]
    expected = [(66, f"--input {lost}: a link to nothing; remove it, or put back")] * 2
    expected.append((2, "--sample_sheet names the input files; give no --input beside it"))
    for number, (sheet, code, message) in enumerate(NO_SHEETS):
        name = f"sheet{number}.csv"
        (tmp_path / name).write_bytes(sheet.encode(errors="surrogateescape"))
        cases.append([None, name])
        expected.append((code, message.format(name)))
    told = refusals(tmp_path, "paths", "inputFiles(each[0], each[1])", cases)
    for (code, beginning), answer in zip(expected, told, strict=True):
        assert answer is not None and answer[0] == code
        assert answer[1].startswith(beginning)


def test_a_link_to_nothing_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.fasta").write_bytes(FASTA)
    (tmp_path / "b.fasta").symlink_to("moved.fasta")
    run = launch(tmp_path, "--input", "*.fasta", "--model", MODEL)
    assert run.code == 66, run.output
    assert f"--input {tmp_path / 'b.fasta'}: a link to nothing; remove it, or put back" in run.last_lines
