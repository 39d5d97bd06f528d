"""A sample sheet: files, and the sample of each as a column of the ledger."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from foreign_files import genes
from split_program import ledger, split


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
def test_samples(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "a.fasta").write_text(">a\nMK\n>b\nM7\n")
    (tmp_path / "lake" / "b.gb").write_bytes(genes("genbank"))
    (tmp_path / "gut, upper.fasta").write_text(">c\nMKV\n")
    rows = [("sample", " file"), ("lake", tmp_path / "lake"), ("gut", f'"{tmp_path / "gut, upper.fasta"}"')]
    sheet = tmp_path / "sheet"
    sheet.write_text("\ufeff" + "".join(f"{one}{delimiter}{other}\r\n" for one, other in rows))
    split(tmp_path, "--sample-sheet", sheet)
    assert [(row["id"], row["sample"]) for row in ledger(tmp_path)] == [
        *(("a", "lake"), ("b", "lake"), ("P0.1", "lake"), ("P1.1", "lake"), ("c", "gut"))
    ]
    assert "give no others beside it" in split(tmp_path, "--sample-sheet", sheet, tmp_path / "lake", code=2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "a row without sample or file, or no row"),
        (b"sample,file\n", "a row without sample or file, or no row"),
        (b"sample,file\n,b.fasta\n", "a row without sample or file, or no row"),
        (b"Sample,file\na,b\n", "no column sample in its first line"),
        (b"a\n", "no column sample and no column file in its first line"),
        ("sample,file\ncafé,b\n".encode("latin-1"), "not a sample sheet in UTF-8"),
    ],
)
def test_what_is_no_sample_sheet(tmp_path: Path, text: bytes, reason: str) -> None:
    (tmp_path / "sheet.csv").write_bytes(text)
    said = split(tmp_path, "--sample-sheet", tmp_path / "sheet.csv", code=65)
    assert f"sheet.csv: {reason}; give a table with the columns sample and file, commas, semicolons or tabs" in said


def test_a_row_with_more_cells_than_the_header_is_refused(tmp_path: Path) -> None:
    """Its last files would be left out without a word."""
    (tmp_path / "sheet.csv").write_text("sample,file\ngut,a.fasta,b.fasta\n")
    said = split(tmp_path, "--sample-sheet", tmp_path / "sheet.csv", code=65)
    assert "sheet.csv: a row with more cells than the header; put quotes around a name with commas in it" in said


@pytest.mark.parametrize("text", ["sample,file\ngut,a\0.fasta\n", "sample,file\ngut," + "a" * 200_000])
def test_what_no_path_can_be_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "sheet.csv").write_text(text)
    said = split(tmp_path, "--sample-sheet", tmp_path / "sheet.csv", code=65)
    assert "sheet.csv: not a sample sheet (" in said and len(said.splitlines()) == 1


def test_a_cell_with_a_line_break_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sheet.csv").write_text('sample,file\r\n"a\r\nb",in.fasta\r\n')
    said = split(tmp_path, "--sample-sheet", tmp_path / "sheet.csv", code=65)
    assert "sheet.csv: a line that ends within quotes; give a table with the columns sample and file" in said


def test_only_line_ends_end_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.fasta").write_text(">a\nMK\n")
    (tmp_path / "sheet.csv").write_text(f"sample,file\n\ndeep\u2028sea,{tmp_path / 'a.fasta'}\n\n")
    split(tmp_path, "--sample-sheet", tmp_path / "sheet.csv")
    assert [row["sample"] for row in ledger(tmp_path)] == ["deep\u2028sea"]


def test_a_sample_sheet_that_is_not_there(tmp_path: Path) -> None:
    assert "no such sample sheet; check the path" in split(tmp_path, "--sample-sheet", tmp_path / "none", code=66)
    assert "a folder, not a sample sheet; give a table" in split(tmp_path, "--sample-sheet", tmp_path, code=66)


def test_of_many_files_and_samples_a_row_group_holds_the_names_about_it(tmp_path: Path) -> None:
    names = [f"{number:03}" for number in range(300)]
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("sample,file\n" + "".join(f"of {name},{tmp_path / name}.fasta\n" for name in names))
    for name in names:
        (tmp_path / f"{name}.fasta").write_text(">p\nMKVW\n" * 1500)
    split(tmp_path, "--sample-sheet", sheet)
    with pq.ParquetFile(tmp_path / "split" / "manifest.parquet") as file:
        groups = [file.read_row_group(group, columns=["file", "sample"]) for group in range(file.num_row_groups)]
    assert len(groups) == 4
    for column, form in (("file", f"{tmp_path}/{{}}.fasta"), ("sample", "of {}")):
        found = [value for group in groups for value in group[column].to_pylist()]
        assert found == [form.format(name) for name in names for _ in range(1500)]
        # A row group of 131,072 rows has 88 files.
        assert all(len(group[column].chunk(0).dictionary) < 200 for group in groups)
