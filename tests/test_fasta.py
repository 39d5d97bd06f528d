"""The rules of FASTA."""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path

import pytest

from virnucpro.config import GAPS
from virnucpro.errors import ExitCode, FastaFormatError, InputMissingError
from virnucpro.fasta import Record, Rejected, normalise, parse_header, read_records, scan_records
from virnucpro.fasta_source import FastaSource

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize(
    ("raw", "residues", "unknown", "gaps"),
    [
        (b"mkvl", b"MKVL", 0, 0),
        (b"M K\tV\r\nL\v\f", b"MKVL", 0, 0),
        (b"--M.K-", b"MK", 0, 4),
        (b"MKVL*", b"MKVL", 0, 0),
        (b"MKVL.\n", b"MKVL", 0, 0),
        (b"MKVL..", b"MKVL", 0, 1),
        (b"MKVL* -\n", b"MKVL", 0, 1),
        (b"MKVL*.", b"MKVL", 0, 1),
        (b"MKVL*-.\n", b"MKVL", 0, 2),
        (b"MKVL-.", b"MKVL", 0, 1),
        (b"MKVL.*", b"MKVL", 0, 1),
        (b"MK**", b"MKX", 1, 0),
        (b"M*KJj", b"MXKXX", 3, 0),
        (b"XBZUO", b"XBZUO", 0, 0),
    ],
)
def test_normalise(raw: bytes, residues: bytes, unknown: int, gaps: int) -> None:
    assert normalise(raw) == (residues, unknown, gaps)


@pytest.mark.parametrize(
    ("raw", "residues", "unknown"),
    [
        (b"--M.K-", b"XXMXKX", 4),
        (b"MKVL.", b"MKVL", 0),
        (b"MK*.", b"MKX", 1),
        (b"MK.*", b"MKX", 1),
        (b"MK-*\n", b"MKX", 1),
        (b"M.KJ", b"MXKX", 2),
        (b"--", b"XX", 2),
    ],
)
def test_gaps_can_be_unknown_residues(raw: bytes, residues: bytes, unknown: int) -> None:
    assert normalise(raw, "unknown") == (residues, unknown, 0)


@pytest.mark.parametrize(
    ("raw", "gap"), [(b"M-K.L", "-"), (b"M.K-L", "."), (b"MK..", "."), (b"MK-*", "-"), (b"-", "-"), (b"MK*.", ".")]
)
def test_gaps_can_be_rejected(raw: bytes, gap: str) -> None:
    with pytest.raises(ValueError, match=f"^gap '{re.escape(gap)}' in the sequence$"):
        normalise(raw, "reject")
    assert normalise(b"mk.\n", "reject") == normalise(b"MK*", "reject") == (b"MK", 0, 0)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "no residue left"),
        (b"*", "no residue left"),
        (b".", "no residue left"),
        (b" -.\n", "no residue left"),
        (b"MK1", "symbol '1'"),
        (b"M#K", "symbol '#'"),
        (b"M\x1aK", r"symbol '\\x1a'"),
        ("MKé".encode(), r"symbol '\\xe9'"),
        (b"M\xc2\x85K", r"symbol '\\x85'"),
        ("\u017fK".encode(), "symbol"),
        ("ß".encode(), "symbol"),
    ],
)
@pytest.mark.parametrize("gaps", GAPS)
def test_normalise_rejects(raw: bytes, reason: str, gaps: str) -> None:
    if (raw, gaps) in ((b" -.\n", "unknown"), (b" -.\n", "reject")):
        return
    with pytest.raises(ValueError, match=reason):
        normalise(raw, gaps)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"sp|P1|A first protein \r", ("sp|P1|A", "first protein")),
        (b"a\tb  c", ("a", "b  c")),
        (b"a", ("a", "")),
        (b"a\x1cb c", ("a\x1cb", "c")),
        (b" a", ("a", "")),
        (b" \t a  b\tc \r\n", ("a", "b\tc")),
        (b"\v\f", ("", "")),
        ("a\u00a0b c".encode(), ("a\u00a0b", "c")),
        (b"", ("", "")),
        ("é ü".encode(), ("é", "ü")),
        (b"\xe9", ("\ufffd", "")),
    ],
)
def test_header(header: bytes, expected: tuple[str, str]) -> None:
    assert parse_header(header) == expected


def test_fixtures_read_as_written() -> None:
    assert [(r.id, r.description, r.sequence, r.line) for r in read_records(FIXTURES / "plain.fasta")] == [
        ("sp|P1|A", "first protein", "MKVLAAGICDEFGHWMKV", 1),
        ("sp|P2|B", "", "MQRSTVWYLLPK", 4),
    ]
    assert [(r.id, r.sequence) for r in read_records(FIXTURES / "crlf.fasta")] == [("a", "MKVLAAGH"), ("b", "MQRW")]
    assert [
        (r.id, r.description, r.sequence, r.unknown_residues, r.gaps_removed)
        for r in read_records(FIXTURES / "residues.fasta")
    ] == [
        ("gaps", "aligned", "MKVL", 0, 5),
        ("stops", "", "MKXVXL", 2, 0),
        ("same", "description with  spaces", "MKV", 0, 0),
        ("same", "", "MKVL", 0, 0),
    ]


def test_rejects_are_told_apart() -> None:
    rejected = [r for r in scan_records(FIXTURES / "rejects.fasta") if isinstance(r, Rejected)]
    assert [(r.ordinal, r.line, r.id, r.reason) for r in rejected] == [
        (1, 3, "digit", "symbol '1' in the sequence"),
        (2, 5, "symbol", "symbol '@' in the sequence"),
        (3, 7, "empty", "no residue left"),
        (4, 8, "only_gaps", "no residue left"),
    ]
    assert [
        (r.ordinal, r.id, r.sequence) for r in scan_records(FIXTURES / "rejects.fasta") if isinstance(r, Record)
    ] == [
        (0, "good", "MKVL"),
        (5, "", "MKVL"),
        (6, "", "MKVL"),
    ]
    records = read_records(FIXTURES / "rejects.fasta")
    assert next(records).id == "good"
    with pytest.raises(FastaFormatError, match=r"rejects\.fasta, line 3: record 'digit': symbol '1'"):
        next(records)


@pytest.mark.parametrize(
    ("name", "message", "line"),
    [
        ("no_header.fasta", "not FASTA", 1),
        ("reads.fastq", "FASTQ", 1),
        ("nucleotide.fasta", "nucleotide", 1),
        ("mac.fasta", "carriage return", 1),
    ],
)
def test_files_that_end_the_run(name: str, message: str, line: int) -> None:
    with pytest.raises(FastaFormatError, match=message) as caught:
        list(scan_records(FIXTURES / name, refuse_nucleotide=True))
    assert caught.value.exit_code == ExitCode.BAD_DATA
    assert (caught.value.file, caught.value.line) == (str(FIXTURES / name), line)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe>\0a\0", "UTF-16"),
        (b">a\nMK\0VL\n", r"line 2: a zero byte"),
        (b">a\n" + b"MKVL\n" * 300_000 + b"\0", r"line 300002: a zero byte"),
        (b"\n\n;comment\nMK\n>a\nMK\n", "line 4: not FASTA"),
        (b"  >a\nMK\n", r"line 1: not FASTA: blanks before the first '>'; remove them: sed "),
        (b"\n \t>a\n MK\n", r"line 2: not FASTA: blanks before the first '>'"),
        (b"  > 5 residues\n", r"line 1: not FASTA: blanks"),
        (b"#a\r>a\nMK\n", "line 1: a carriage return"),
        (b"\n\r>a\nMK\n", "line 2: a carriage return"),
        (b"\n" * (1 << 20) + b">a\nMK\n", "no '>' in the first 1048576 bytes"),
        (b"PK\x03\x04....", "zip"),
        (bytes(range(1, 255)), "not FASTA"),
    ],
)
def test_what_is_not_fasta(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "odd 'name'.fasta"
    path.write_bytes(content)
    with pytest.raises(FastaFormatError, match=message):
        list(scan_records(path))


def test_a_short_or_mixed_file_is_not_called_nucleotide(tmp_path: Path) -> None:
    path = tmp_path / "short.fasta"
    path.write_bytes(b">a\nGAGAGA\n>b\nMKVLLWQRHYF\nACGTACGT\n")
    assert len(list(read_records(path, refuse_nucleotide=True))) == 2
    assert len(list(read_records(FIXTURES / "nucleotide.fasta"))) == 1


def test_the_same_head_is_looked_at_in_place_and_in_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "late.fasta"
    for blanks, refused in ((1000, True), (1 << 20, False)):
        path.write_bytes(b">a" + b" " * blanks + b"\n" + b"ACGT" * 20)
        source = FastaSource(path, expected="protein")
        for look in (source.plain_file, lambda source=source: list(source.blocks(1 << 21))):
            if refused:
                with pytest.raises(FastaFormatError, match="nucleotide"):
                    look()
            else:
                assert look()


def test_missing_inputs(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none.fasta", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(InputMissingError, match=message) as caught:
            list(read_records(path))
        assert caught.value.exit_code == ExitCode.NO_INPUT


def test_blank_and_marked_files(tmp_path: Path) -> None:
    assert list(read_records(FIXTURES / "blank.fasta")) == []
    path = tmp_path / "bom.fasta"
    path.write_bytes(b"\xef\xbb\xbf\n>a\nMK\n")
    assert [(r.id, r.line) for r in read_records(path)] == [("a", 2)]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("before", "comments"), [(b"# a\n;b\r\n \t\n#\n", 3), (b"\n", 0), (b";\n", 1), (b"#\x85\xe2\x80\xa8\x0c>\n", 1)]
)
def test_comments_before_the_first_record_are_counted(
    tmp_path: Path, start: bytes, before: bytes, comments: int
) -> None:
    path = tmp_path / "commented.fasta"
    path.write_bytes(start + before + b">a\nMK\n")
    source = FastaSource(path)
    assert b"".join(source.blocks(5)) == b">a\nMK\n"
    assert (source.first_line, source.comment_lines) == (before.count(b"\n") + 1, comments)
    plain = FastaSource(path).plain_file()
    assert plain is not None
    assert (plain.start, plain.first_line) == (len(start + before), source.first_line)
    assert plain.comment_lines == comments
    path.write_bytes(start + before)
    assert list(source.blocks(5)) == []
    assert source.comment_lines == comments


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        buffer = io.BytesIO(gzip.compress(b">a\nMK\n>b\n1\n"))

    monkeypatch.setattr("sys.stdin", Input())
    records = read_records(Path("-"))
    assert next(records).sequence == "MK"
    with pytest.raises(FastaFormatError, match="standard input, line 3"):
        next(records)
