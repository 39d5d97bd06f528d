"""The fast path over blocks keeps every rule of FASTA, whatever the size of its blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fasta_rows import rows_of_blocks, rows_of_scan, sequences_of
from hypothesis import example, given
from hypothesis import strategies as st

from virnucpro import fasta, fasta_source
from virnucpro.errors import DataError, FastaFormatError, VirnucproError
from virnucpro.fasta_source import FastaSource
from virnucpro.split import cut
from virnucpro.split.cut import cut_file
from virnucpro.split.parse import KEY_BYTES, parse_block

FIXTURES = Path(__file__).parents[1] / "fixtures"
SIZES = (1, 2, 3, 5, 7, 64)


@pytest.mark.parametrize("name", ["plain.fasta", "crlf.fasta", "residues.fasta", "rejects.fasta"])
def test_plain_files_cut_at_every_byte(tmp_path: Path, name: str) -> None:
    whole = (FIXTURES / name).read_bytes()
    path = tmp_path / name
    full = rows_of_scan(FIXTURES / name)
    for stop in range(len(whole) + 1):
        path.write_bytes(whole[:stop])
        if whole[:stop].endswith(b"\r"):
            line = whole.count(b"\n", 0, stop) + 1
            with pytest.raises(FastaFormatError, match=f"line {line}: a carriage return"):
                rows_of_scan(path)
            continue
        rows = rows_of_scan(path)
        assert rows[:-1] == full[: max(len(rows) - 1, 0)]
        for size in SIZES:
            assert rows_of_blocks(path, size) == rows
            assert rows_of_blocks(path, size, in_place=True) == rows
            assert rows_of_scan(path, size) == rows


EDGES = [
    b">",
    b"\n>",
    b"\n",
    b"\r\n",
    b"\r",
    b"\n\n>",
    b">a b\n",
    b"A",
    b"mk",
    b"*",
    b"J",
    b"1",
    b"-",
    b".",
    b" ",
    b"\t",
]
OTHERS = [b"\xe9", b"\xc3\xa9", b"L*\n", b"> ", b"\x0b", b"\x1c", b"\x85", b"\0", b">id\r\n", b"MKV\n"]
PIECES = st.sampled_from([*EDGES, *OTHERS])


@given(
    start=st.sampled_from([b">", b"\n>", b">x y \n", b"\xef\xbb\xbf>q\n", b""]),
    pieces=st.lists(PIECES, max_size=30),
    size=st.sampled_from(SIZES),
)
@example(start=b">", pieces=[], size=1)
@example(start=b">a\n", pieces=[b">", b"\n", b">"], size=2)
def test_both_paths_agree(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, pieces: list[bytes], size: int
) -> None:
    path = tmp_path_factory.mktemp("agree") / "input.fasta"
    path.write_bytes(start + b"".join(pieces))

    def outcome(read: object, *arguments: object, **options: object) -> object:
        assert callable(read)
        try:
            return read(path, *arguments, **options)
        except VirnucproError as error:
            return type(error), str(error)

    expected = outcome(rows_of_scan)
    assert outcome(rows_of_blocks, size) == expected
    assert outcome(rows_of_blocks, size, in_place=True) == expected
    assert outcome(rows_of_scan, size) == expected


@given(
    bodies=st.lists(st.text("MKVLAJ*1\n", max_size=12), min_size=1, max_size=6),
    limit=st.integers(1, 7),
    size=st.sampled_from(SIZES),
)
@example(bodies=["MKVLA\nMKVLA\n\nMK", "MKV\nL"], limit=5, size=64)
def test_truncation_is_that_of_the_whole_sequence(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[str], limit: int, size: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "input.fasta"
    path.write_text("".join(f">p{i} x\n{body}\n" for i, body in enumerate(bodies)))
    expected = [(*row[:3], row[3][:limit], *row[4:]) for row in rows_of_scan(path)]
    assert rows_of_blocks(path, size, limit) == expected
    assert rows_of_blocks(path, size, limit, in_place=True) == expected


def test_truncation_cuts_the_sequence_and_its_key() -> None:
    text = b">a\nMKVLAA\n>b\nMKV*\n>c\nmkvj\n"
    block = parse_block(text, 3)
    assert sequences_of(block, text) == [b"MKV", b"MKV", b"MKV"]
    assert block.lengths.tolist() == [6, 3, 4]
    assert len({block.keys[i : i + KEY_BYTES] for i in range(0, 3 * KEY_BYTES, KEY_BYTES)}) == 1
    assert block.unknown_residues.tolist() == [0, 0, 1]
    assert np.array_equal(block.lines, [0, 2, 4])


def test_a_record_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fasta, fasta_source, cut):
        monkeypatch.setattr(module, "RECORD_BYTES", 1000)
    monkeypatch.setattr(cut, "SEARCH_BYTES", 100)
    path = tmp_path / "long.fasta"
    path.write_bytes(b">a\nMK\n>b\n" + b"MKVL\n" * 1000)
    for read in (
        lambda: rows_of_scan(path, 100),
        lambda: rows_of_blocks(path, 100),
        lambda: rows_of_blocks(path, 100, in_place=True),
    ):
        with pytest.raises(FastaFormatError, match=r"line 3: a record of more than 1000 bytes"):
            read()


def test_a_file_that_shrinks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "input.fasta"
    path.write_bytes(b">a\nMKVL\n" * 20)
    plain = FastaSource(path).plain_file()
    assert plain is not None
    spans = list(cut_file(plain, 50))
    assert len(spans) > 2
    path.write_bytes(b">a\nMKVL\n")
    with pytest.raises(DataError, match=r"input\.fasta: changed while it was read"):
        spans[-1].read()
