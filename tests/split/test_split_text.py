"""Both readers against a slow one: line ends, comments, joined files and gaps, wherever blocks are cut."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from fasta_reference import OTHER_ENDS, RefusedError, read
from fasta_rows import read_blocks, rows_of_scan
from hypothesis import example, given, settings
from hypothesis import strategies as st

from virnucpro.config import GAPS
from virnucpro.errors import ExitCode, FastaFormatError

SIZES = (1, 2, 3, 5, 7, 64, 1 << 18)
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": zstandard.ZstdCompressor().compress,
}

LINE_ENDS = [b"\n", b"\n", b"\r\n", b"\r", b"\r\r\n", b"\n\r", b"", b"\x0b", b"\x0c", b"\xc2\x85", b"\xe2\x80\xa8"]
HEADERS = [b">a", b">a b", b"> a", b">", b">\t", b">a >b", b">a\xe2\x80\xa9>b", b">a\x0c>b", b"\xef\xbb\xbf>a", b" >a"]
HEADERS += [b">\xc3\xa9\xc2\xa0b", b">\xe9", b">a;b #c", b">a\x01>b", b">a\xc3\x85>"]
BODIES = [b"MKV", b"mkv", b"MKV*", b"MKV.", b"M-K.V", b"--", b"M*J", b"MKV>b", b"MK V\t", b"MK1", b"", b" ", b"\x1aM"]
BODIES += [
    b";c",
    b";c >d",
    b";c>d",
    b";>d -> x",
    b";",
    b"#c",
    b" ;c",
    b"\xef\xbb\xbf",
    b"\xef\xbb\xbfMK",
    b"\0",
    b"M\xc2\x85K",
    b".",
    b"*.",
    b"MK*.",
    b"MK*-.",
]
PREAMBLES = [
    b"",
    b"\xef\xbb\xbf",
    b"\n \n",
    b"#c\n;d\r\n",
    b"\xef\xbb\xbf# x\n\n",
    b"#c\r",
    b"\r",
    b";c",
    b"\0",
    b"M\n",
]
LINES = st.tuples(st.sampled_from([*HEADERS, *BODIES, *BODIES]), st.sampled_from(LINE_ENDS)).map(b"".join)
PLAIN_LINES = st.tuples(st.sampled_from([b">a b", b">c", b"MKV", b"M-K.", b";c"]), st.sampled_from([b"\n", b"\r\n"]))


def check(path: Path, data: bytes, size: int, gaps: str, compression: str) -> None:
    """Hold every way of reading against the reference."""
    path.write_bytes(COMPRESS[compression](data))
    ways = (
        lambda: (rows_of_scan(path, size, gaps), None),
        lambda: read_blocks(path, size, gaps=gaps),
        lambda: read_blocks(path, size, gaps=gaps, in_place=compression == "plain"),
    )
    try:
        rows, comments = read(data, gaps)
    except RefusedError as refused:
        for way in ways:
            with pytest.raises(FastaFormatError) as caught:
                way()
            assert caught.value.exit_code == ExitCode.BAD_DATA
            assert caught.value.file == str(path)
            # Where it is another format, the line is that where it shows.
            assert caught.value.line == refused.line or refused.words == "not FASTA"
            assert refused.words in str(caught.value)
        return
    for way in ways:
        found, counted = way()
        assert found == rows
        assert counted in (comments, None)


@settings(max_examples=400)
@given(
    preamble=st.sampled_from(PREAMBLES),
    lines=st.one_of(st.lists(LINES, max_size=12), st.lists(PLAIN_LINES.map(b"".join), max_size=12)),
    last=st.sampled_from([b"", b">a\nMKV", b">a\nMKV\r", b">a", b">b\nMK\n;"]),
    size=st.sampled_from(SIZES),
    gaps=st.sampled_from(GAPS),
    compression=st.sampled_from(list(COMPRESS)),
)
@example(b"", [b">a\n", b"MKV\n", b">b\r", b"MKTLLV\r", b">c\n", b"MAAA\n"], b"", 2, "remove", "plain")
@example(b";c", [b">a\x0b", b"MKV\r"], b"", 1, "remove", "plain")
@example(b"", [b">a\n", b"M.K\n", b">b\n", b"MK\n"], b"", 64, "remove", "plain")
@example(b"\0", [b">a\n", b">a\n", b">a\n", b"\0\n"], b"", 64, "remove", "plain")
@example(b"\0", [b">", b"\0\n", b"\0.", b"\0\n"], b"", 64, "remove", "plain")
def test_all_readers_agree_with_the_reference(
    tmp_path_factory: pytest.TempPathFactory,
    preamble: bytes,
    lines: list[bytes],
    last: bytes,
    size: int,
    gaps: str,
    compression: str,
) -> None:
    data = preamble + b"".join(lines) + last
    check(tmp_path_factory.mktemp("text") / "input.fasta", data, size, gaps, compression)


WHOLE = b">a x\nMKV\nLL\n>b\nMKTLLV\n>c y\nMAAA\n"


@pytest.mark.parametrize(
    "what", [b"\r", b">", b"\xef\xbb\xbf>", b"\xe2\x80\xa8>", b"\0", b";", b"\x85", b"\n\n", b"\r\n"]
)
def test_what_stands_at_any_place(tmp_path: Path, what: bytes) -> None:
    """Put in at every byte, for every edge that blocks can have."""
    refused = 0
    for place in range(1, len(WHOLE) + 1):
        data = WHOLE[:place] + what + WHOLE[place:]
        for size in SIZES[:-1]:
            check(tmp_path / "input.fasta", data, size, "remove", "plain")
        try:
            read(data)
        except RefusedError:
            refused += 1
    # A carriage return before a line feed is half of a line end.
    everywhere = {b"\r": len(WHOLE) - WHOLE.count(b"\n"), b"\0": len(WHOLE)}
    assert refused == everywhere.get(what, refused)


def test_the_record_after_a_lone_carriage_return_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "input.fasta"
    path.write_bytes(b">a\nMKV\n>b\rMKTLLV\r>c\nMAAA\n")
    for way in (
        lambda: rows_of_scan(path),
        lambda: read_blocks(path, 64),
        lambda: read_blocks(path, 64, in_place=True),
    ):
        with pytest.raises(FastaFormatError) as caught:
            way()
        assert str(caught.value) == (
            f"{path}, line 3: a carriage return that no line feed follows; "
            r"convert the line ends: tr '\r' '\n' <old.fasta >new.fasta"
        )


@pytest.mark.parametrize("end", OTHER_ENDS)
@pytest.mark.parametrize("after", [">c", "c", " >c"])
def test_line_ends_of_unicode_are_none(tmp_path: Path, end: str, after: str) -> None:
    data = f">a\nMKV\n>b{end}{after}\nMAAA\n>d\nM{end}K\n".encode("latin-1")
    for size in SIZES:
        check(tmp_path / "input.fasta", data, size, "remove", "plain")
    if after == ">c":
        with pytest.raises(RefusedError):
            read(data)
    else:
        assert [row[1].startswith("b") for row in read(data)[0]] == [False, True, False]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (b"MK\r", "a carriage return that no line feed follows; convert the line ends"),
        (b"MK\0\n", "a zero byte: binary data or UTF-16 text; give"),
        (">u\nMKV\n".encode("utf-16-le"), "a zero byte: binary data or UTF-16 text; give"),
        (b"MKV>x y\n", "'>' inside a sequence line: the line break before it is missing; put it in"),
        (b";x>y z\nMKV\n", "'>' inside a comment: the line break before it is missing; put it in"),
        (b"\xef\xbb\xbf>x\nMKV\n", "a byte order mark (BOM) before '>'; remove it"),
        (b">x\xc2\x85>y\nMKV\n", "'>' in a header after a character that ends lines elsewhere"),
    ],
)
@pytest.mark.parametrize("compression", list(COMPRESS))
def test_faults_far_from_the_head(tmp_path: Path, fault: bytes, message: str, compression: str) -> None:
    """Behind what is looked at when a file is opened, in a block of its own."""
    before = (b">a\n" + b"MKVL" * 200 + b"\n") * 1500
    path = tmp_path / "input.fasta"
    path.write_bytes(COMPRESS[compression](before + fault + b"MKVLLLLL\n>z\nMK\n"))
    in_place = compression == "plain"
    for way in (lambda: rows_of_scan(path), lambda: read_blocks(path, 1 << 20, in_place=in_place)):
        with pytest.raises(FastaFormatError, match="input") as caught:
            way()
        assert (caught.value.file, caught.value.line) == (str(path), 3001)
        assert message in str(caught.value)
