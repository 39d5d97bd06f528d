"""What users' names may hold does nothing where it is shown: on a terminal, in rejected.tsv, on the report's page."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from virnucpro.plain_text import table_cell, visible

BIN = Path(__file__).parents[1] / "bin"
MODEL_JSON = (
    '{"name": "m", "source": "fair-esm", "layers": 1, "embed_dim": 2, "heads": 1, "weights_sha256": "0", '
    '"revision": null, "parameters": 1, "left_out": [], "files": []}'
)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain é 蛋白", "plain é 蛋白"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\rb\x00c\x7f\x9b2J", r"a\rb\x00c\x7f\x9b2J"),
        ("gnp\u202egpj.exe", r"gnp\u202egpj.exe"),
        ("a\u2028b", r"a\u2028b"),
        ("\udce9", r"\udce9"),
    ],
)
def test_what_would_do_something_is_seen_instead(text: str, seen: str) -> None:
    assert visible(text) == seen


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-2", "@SUM(A1)"])
def test_no_cell_is_a_formula(cell: str) -> None:
    assert table_cell(cell) == f"'{cell}"
    assert table_cell(f"id {cell}") == f"id {cell}"


def split(fasta: bytes, folder: Path, name: str = "in.fasta", *options: str) -> subprocess.CompletedProcess[bytes]:
    (folder / name).write_bytes(fasta)
    (folder / "model.json").write_text(MODEL_JSON)
    command = [sys.executable, BIN / "split_fasta.py", name, "--model-json", "model.json", "--outdir", "out", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False)


def test_rejected_records_are_one_harmless_line_each(tmp_path: Path) -> None:
    records = b">=cmd|'/c calc'!A1 x\nMK1\n>\x1b]0;owned\x07 y\nMK2\n>-\nMK3\n>good\nMKV\n"
    done = split(records, tmp_path, "=in.fasta")
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "out" / "rejected.tsv").read_text()
    assert not set(map(chr, range(32))) & set(written) - {"\n", "\t"}
    rows = list(csv.reader(written.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row[3] for row in rows[1:]] == ["'=cmd|'/c", r"\x1b]0;owned\x07", "'-"]
    assert {row[0] for row in rows[1:]} == {"'=in.fasta"}


def test_the_terminal_takes_no_commands(tmp_path: Path) -> None:
    done = split(b">\x1b[2Jgone\nMK1\n", tmp_path, "in.fasta", "--strict")
    assert done.returncode == 65
    assert b"\x1b" not in done.stderr and rb"\x1b[2Jgone" in done.stderr
