"""Entries of GenBank and EMBL files that Biopython would leave out without a word."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_files import genes
from split_program import ledger, split


@pytest.mark.parametrize("format", ["genbank", "embl"])
def test_an_entry_without_an_end_before_another_ends_the_run(format: str, tmp_path: Path) -> None:
    """As of a file that was cut short and joined with the next: the second's genes would not be there."""
    end = b"\n//\n"
    (tmp_path / "joined").write_bytes(genes(format).replace(end, b"\n") + genes(format))
    said = split(tmp_path, tmp_path / "joined", code=65)
    assert "after 1 entries (2 begin, so that one has no // at its end); copy or download it again" in said


@pytest.mark.parametrize("format", ["genbank", "embl"])
@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"  ", b"\n\t "])
def test_what_stands_before_the_first_entry_does_not_hide_it(before: bytes, format: str, tmp_path: Path) -> None:
    (tmp_path / "marked").write_bytes(before + 2 * genes(format))
    split(tmp_path, tmp_path / "marked")
    assert [row["id"] for row in ledger(tmp_path)] == ["P0.1", "P1.1"] * 2


def test_entries_are_counted_across_what_is_read_at_once(tmp_path: Path) -> None:
    (tmp_path / "many").write_bytes(1200 * genes("genbank"))
    assert (tmp_path / "many").stat().st_size > 1 << 19
    split(tmp_path, tmp_path / "many")
    assert len(ledger(tmp_path)) == 2400
