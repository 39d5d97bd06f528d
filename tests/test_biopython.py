"""Against Biopython's reader: the same records, ids, order and residues, but for the rules in docs/usage.md.

RANDOM_FASTA_FILES=100000 reads as many random files, a few hundred stand for them otherwise.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from Bio import SeqIO
from fasta_reference import residues
from fasta_rows import Row, read_blocks, rows_of_scan

from virnucpro.config import GAPS

FILES_AT_ONCE = 500
FILES = int(os.environ.get("RANDOM_FASTA_FILES", FILES_AT_ONCE))
FIXTURES = Path(__file__).parent / "fixtures"
PROTEINS = Path(__file__).parents[1] / "assets" / "proteins.fasta"


def rows_of_biopython(path: Path, gaps: str) -> list[tuple[str, str, str | None]]:
    """Id, residues and reason of each record: Biopython's, with our rules for letters and comments."""
    lines = path.read_text("utf-8-sig", "replace").splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if line.startswith(">")), len(lines))
    without_comments = path.with_suffix(".plain")
    text = "".join(line for line in lines[first:] if not line.startswith(";"))
    without_comments.write_text(text, "utf-8", newline="")
    rows = []
    for record in SeqIO.parse(without_comments, "fasta"):
        sequence, _, _, reason = residues(bytes(record.seq).decode("latin-1"), gaps)
        rows.append((record.id, sequence, reason))
    return rows


def compare(path: Path, gaps: str = "remove", size: int = 1 << 18) -> list[Row]:
    rows = rows_of_scan(path, size, gaps)
    assert [(row[1], row[3], row[7]) for row in rows] == rows_of_biopython(path, gaps)
    assert read_blocks(path, size, gaps=gaps)[0] == read_blocks(path, size, gaps=gaps, in_place=True)[0] == rows
    return rows


LETTERS = "ACDEFGHIKLMNPQRSTVWY" * 3 + "acdefghiklmnpqrstvwyBXZUOJbxzuoj"
ODD = "*-.-.  \t1@#é"
WORDS = [
    "sp|P1|A_B",
    "x",
    "é",
    "a;b",
    "#",
    "1",
    "a>b",
    "->",
    ">",
    "\u00d8",
    "ref|N|\x01gi|2",
    "OS=Homo sapiens",
    "[x y]",
]


def random_fasta(generator: random.Random) -> str:
    """A file of a few records, which the rules do not refuse."""
    ends = generator.choice([["\n"], ["\n"], ["\r\n"], ["\n", "\r\n"]])
    oddness = generator.choice([0, 0, 0.01, 0.1])
    comments = generator.random() < 0.2
    lines = generator.choices(["", " ", "# by hand", "; >c"], k=generator.randrange(3)) if comments else []
    for _ in range(generator.randrange(7)):
        blank = generator.choice(["", "", "", " ", "\t "])
        header = blank + generator.choice([" ", " ", "\t", "  "]).join(
            generator.choices(WORDS, k=generator.randrange(4))
        )
        lines.append(">" + header + generator.choice(["", "", " "]))
        length, width = generator.randrange(150), generator.choice([1, 7, 60, 150])
        sequence = "".join(
            generator.choice(ODD if generator.random() < oddness else LETTERS) for _ in range(length)
        ) + generator.choice(["", "", "", "*", ".", "-", "**"])
        lines += [sequence[i : i + width] for i in range(0, len(sequence), width)]
        lines += generator.choices(["", " ", ";c >x" if comments else ""], k=generator.choice([0, 0, 0, 1, 2]))
    text = "".join(line + generator.choice(ends) for line in lines)
    return text if generator.random() < 0.7 else text.rstrip("\r\n")


@pytest.mark.parametrize("seed", range(FILES // FILES_AT_ONCE))
def test_random_files(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    path = tmp_path / "input.fasta"
    kept = rejected = 0
    for _ in range(FILES_AT_ONCE):
        bom = generator.choice(["", "", "", "\ufeff"])
        path.write_bytes((bom + random_fasta(generator)).encode())
        rows = compare(path, generator.choice(GAPS), generator.choice([1, 3, 50, 1 << 18]))
        rejected += sum(row[7] is not None for row in rows)
        kept += sum(row[7] is None for row in rows)
    assert kept > FILES_AT_ONCE and rejected > FILES_AT_ONCE / 10


@pytest.mark.parametrize("path", [*map(FIXTURES.joinpath, ("plain.fasta", "crlf.fasta", "residues.fasta")), PROTEINS])
def test_files_of_the_project(tmp_path: Path, path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    assert len(compare(copy)) > 1
