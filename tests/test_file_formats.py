"""What is not FASTA is named, and what the message says to do leads to the sequences."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from Bio import SeqIO
from descriptions import describe
from fasta_rows import rows_of_blocks
from foreign_files import BINARIES, COMPRESSORS, FASTA, SEQUENCES, TEXTS, write
from hypothesis import example, given
from hypothesis import strategies as st

from virnucpro.errors import ExitCode, FastaFormatError
from virnucpro.fasta import read_records, scan_records
from virnucpro.fasta_source import FastaSource
from virnucpro.file_formats import _MAGIC, _PIR, _TAR, _TEXT, _ZIP

DOCS = (Path(__file__).parents[1] / "docs" / "troubleshooting.md").read_text()
ALL = {**{name: (content, what) for name, (content, what, _) in TEXTS.items()}, **BINARIES}
IN_WORDS = re.compile(r"not FASTA")


def refused(path: Path) -> FastaFormatError:
    """The error of both readers."""
    with pytest.raises(FastaFormatError) as caught:
        list(scan_records(path))
    with pytest.raises(FastaFormatError) as caught_in_blocks:
        rows_of_blocks(path, 1000, in_place=True)
    assert str(caught.value) == str(caught_in_blocks.value)
    assert (caught.value.exit_code, caught.value.file) == (ExitCode.BAD_DATA, str(path))
    return caught.value


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str, tmp_path: Path) -> None:
    content, what, _ = TEXTS[name]
    error = refused(write(tmp_path, "named.fasta", b"\n \n" + content.lstrip()))
    assert f", line {5 if name.endswith('with a comment') else 3}: {what}" in str(error)
    assert IN_WORDS.search(str(error))


@pytest.mark.parametrize("name", BINARIES)
def test_binaries(name: str, tmp_path: Path) -> None:
    content, what = BINARIES[name]
    path = write(tmp_path, "named.fasta", content)
    error = refused(path)
    assert str(error).startswith(f"{path}: {what}")
    assert error.line is None


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [FASTA.decode(), ">ä 蛋白质\nMKV\n;蛋\n>b\nMK\n"])
def test_a_wide_text_cut_off_at_any_byte(encoding: str, text: str, tmp_path: Path) -> None:
    data = text.encode(encoding)
    told = len("1234" if text.isascii() else text.partition("V")[0]) * len("a".encode(encoding))
    for end in range(told, len(data) + 1):
        assert f"text in {encoding[:6].upper()}, not FASTA" in str(refused(write(tmp_path, "cut", data[:end])))


@pytest.mark.parametrize("text", [b">a\n>a\n>a\n\n", FASTA, b">ab\nMKVL\n>c\nMK\n"])
@pytest.mark.parametrize("what", [b"\0", b"\0\0", b"\0\0\0"])
def test_a_stray_zero_byte_makes_no_wide_text(text: bytes, what: bytes, tmp_path: Path) -> None:
    """FASTA damaged in one place or in two, which another encoding would not mend."""
    for first in range(min(len(text), 16) + 1):
        for second in range(first, min(len(text), 16) + 1):
            data = text[:first] + what + text[first:second] + what + text[second:]
            for damaged in (text[:first] + what + text[first:], data):
                error = refused(write(tmp_path, "damaged", damaged))
                assert "a zero byte: binary data or UTF-16 text" in str(error)
                assert error.line == damaged.count(b"\n", 0, damaged.index(b"\0")) + 1


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("name", ["pir", "genpept", "html", "csv", "tar of GNU", "zip", "utf-16-le without a mark"])
def test_inside_what_is_read(name: str, compressor: str, tmp_path: Path) -> None:
    content, what = ALL[name]
    error = refused(write(tmp_path, "named.fasta", COMPRESSORS[compressor](content)))
    assert re.search(rf"{what}.* inside {compressor}, not FASTA", str(error))
    if name in ("pir", "zip"):
        assert f"unpack it first ({compressor} -dc), then " in str(error)


@pytest.mark.parametrize("compressor", ["gzip", "bzip2", "xz"])
def test_a_compressed_tar_archive_is_unpacked_at_once(compressor: str, tmp_path: Path) -> None:
    path = write(tmp_path, "archive", COMPRESSORS[compressor](ALL["tar of GNU"][0]))
    error = refused(path)
    assert f"a tar archive inside {compressor}, not FASTA; unpack it: tar -xf FILE" in str(error)
    run_remedy("tar -xf FILE", error, path)
    assert [record.sequence for record in read_records(tmp_path / "proteins.fasta")] == SEQUENCES


@pytest.mark.parametrize("inner", COMPRESSORS)
@pytest.mark.parametrize("outer", COMPRESSORS)
def test_compressed_twice(inner: str, outer: str, tmp_path: Path) -> None:
    path = write(tmp_path, "twice.fasta", COMPRESSORS[outer](COMPRESSORS[inner](FASTA)))
    error = refused(path)
    assert f"compressed twice, {inner} inside {outer}" in str(error)
    run_remedy(f"{outer} -dc FILE > once.{inner}", error, path)
    assert [record.sequence for record in read_records(tmp_path / f"once.{inner}")] == SEQUENCES


@pytest.mark.parametrize("name", [name for name, (_, _, converts) in TEXTS.items() if converts])
def test_biopython_converts_as_the_message_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, name, TEXTS[name][0])
    monkeypatch.chdir(tmp_path)
    (call,) = re.findall(r"SeqIO\.convert\('FILE', '(.*)', '(.*)', '(.*)'\)", str(refused(path)))
    assert SeqIO.convert(path, *call) == 2
    assert [record.sequence.replace("-", "") for record in read_records(tmp_path / call[1])] == SEQUENCES


def run_remedy(command: str, error: FastaFormatError, path: Path) -> None:
    assert command in str(error)
    subprocess.run(["bash", "-ec", command.replace("FILE", path.name)], cwd=path.parent, check=True)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("tsv", """awk -F '\\t' '{print ">" $1 "\\n" $2}' FILE > proteins.fasta"""),
        ("blanks", """awk '{print ">" $1 "\\n" $2}' FILE > proteins.fasta"""),
        ("tar of GNU", "tar -xf FILE"),
        *(
            (f"{encoding.lower()} {mark} a mark", f"iconv -f {name} -t UTF-8 FILE > proteins.fasta")
            for encoding in ("UTF-16-LE", "UTF-32-BE")
            for mark, name in (("with", encoding[:6]), ("without", encoding[:6] + encoding[-2:]))
        ),
    ],
)
def test_commands_do_what_the_message_says(name: str, command: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, ALL[name][0])
    run_remedy(command, refused(path), path)
    records = list(read_records(tmp_path / "proteins.fasta"))
    assert [(record.id, record.sequence) for record in records] == list(zip("ab", SEQUENCES, strict=True))


@pytest.mark.parametrize("name", ["pir", "utf-16-be with a mark", "tar of POSIX", "csv", "html"])
def test_the_second_file_of_a_split(name: str, tmp_path: Path) -> None:
    describe().write(tmp_path / "model.json")
    (tmp_path / "good.fasta").write_bytes(FASTA)
    bad = write(tmp_path, "bad", ALL[name][0])
    program = [sys.executable, str(Path(__file__).parents[1] / "bin" / "split_fasta.py")]
    options = ["--model-json", str(tmp_path / "model.json"), "--outdir", str(tmp_path / "split")]
    done = subprocess.run(
        [*program, *options, str(tmp_path / "good.fasta"), str(bad)], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.BAD_DATA
    (line,) = done.stderr.splitlines()
    assert line == f"split_fasta.py: error: {refused(bad)}"
    assert list((tmp_path / "split").iterdir()) == []


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0>\ufeff"), max_size=20)
HEADERS = st.builds(
    lambda code, name, rest: f">{code}{name}{rest}",
    st.sampled_from(
        [
            "",
            "",
            "P1;",
            "F1;",
            "XX;",
            "sp|P1;",
            "p1;",
            "P12;",
            "#NEXUS",
            "LOCUS  ",
            "@",
            "X Genetic Sequence Data Bank",
            "PK\x03\x04",
        ]
    ),
    st.sampled_from(["a", "1;2", "sp|P05067|A4_HUMAN", ";", "x;y;z", "ID   a"]),
    WORDS,
)
#: As of a FASTA file: a stop only where a sequence has one line, as below ids like PIR's it would be PIR's end.
BODIES = st.one_of(
    st.lists(st.text("ACDEFGHIKLMNPQRSTVWYBXZUOJ-acgtn", min_size=1, max_size=80), min_size=1, max_size=4).map(
        "\n".join
    ),
    st.text("ACDEFGHIKLMNPQRSTVWY", min_size=1, max_size=80).map(lambda residues: residues + "*"),
)
ENDS = st.sampled_from(["", "\n", "\n\n", " \n"])


@given(st.lists(st.tuples(HEADERS, BODIES), min_size=1, max_size=5), ENDS, st.sampled_from(["", "\ufeff", "\n \n"]))
@example([(">P1;crystallin", "MKVLA\nMKVL"), (">P1;b", "MKV*")], "\n", "")
def test_no_fasta_is_refused(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, str]], end: str, begin: str
) -> None:
    path = tmp_path_factory.mktemp("fasta") / "in.fasta"
    text = begin + "\n".join(f"{header}\n{body}" for header, body in records) + end
    path.write_bytes(text.encode())
    read = list(scan_records(path))
    assert [record.ordinal for record in read] == list(range(len(records)))
    assert FastaSource(path).plain_file() is not None


@pytest.mark.parametrize(
    ("text", "pir"),
    [
        (">P1;a\ntitle\nMKV*\n", True),
        (">P1;a\nTITLE\nMKV*\n", True),
        (">P1;a\nTITLE\nMKV *\n", True),
        (">P1;a\n\nMKV*\n", False),
        (">P1;a\nMKV*\n", False),
        (">P1;a\nMKV\nMKL\n", False),
        (">P1;a\n" + "MKVLA" * 12 + "\nMKL*\n", False),
        (">P1;a\n\nMKV*\n>P1;b\nalpha, beta\nMKV*\n", True),
        (">P1;a\ntitle\nMKV*\n>b\nMKV\n", False),
        (">P1 a;b\ntitle\nMKV*\n", False),
        (">P2;a\ntitle\nMKV*\n", False),
        (">P1;\ntitle\nMKV*\n", False),
    ],
)
def test_pir_has_titles(text: str, pir: bool, tmp_path: Path) -> None:
    path = write(tmp_path, "in", text.encode())
    if pir:
        assert "a PIR file" in str(refused(path))
    else:
        assert next(iter(scan_records(path))).line == 1


def test_every_format_is_in_the_docs() -> None:
    formats = {*_MAGIC.values(), *(found for _, found in _TEXT), _PIR, _ZIP, _TAR}
    names = {found.what.removeprefix("a ").removeprefix("an ") for found in formats}
    assert len(names) > 40
    assert {name for name in names if name not in DOCS} == set()


def test_white_space_without_end_is_no_empty_file(tmp_path: Path) -> None:
    path = write(tmp_path, "blank", b"\n" * (1 << 20) + FASTA)
    assert "no '>' in the first 1048576 bytes" in str(refused(path))
