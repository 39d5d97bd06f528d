"""gzip, bzip2, xz and zstd: whole, in pieces, cut short, damaged, and larger than memory once unpacked."""

from __future__ import annotations

import gzip
import lzma
import random
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
import zstandard
from fasta_rows import rows_of_blocks, rows_of_scan
from foreign_files import COMPRESSORS, write

from virnucpro import compression
from virnucpro.compression import compression_of
from virnucpro.errors import ExitCode, FastaFormatError
from virnucpro.fasta import read_records
from virnucpro.fasta_source import FastaSource

BIN = Path(__file__).parents[1] / "bin"
FASTA = (Path(__file__).parent / "fixtures" / "plain.fasta").read_bytes()
FIRST, SECOND = FASTA[: len(FASTA) // 2], FASTA[len(FASTA) // 2 :]
SKIPPABLE = b"\x53\x2a\x4d\x18\x05\0\0\0hello"


def rows(path: Path) -> list[object]:
    found = rows_of_blocks(path, 1000, in_place=True)
    assert found == rows_of_scan(path)
    return list(found)


@pytest.fixture
def expected(tmp_path: Path) -> list[object]:
    return rows(write(tmp_path, "plain", FASTA))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_cut_at_every_byte(name: str, tmp_path: Path, expected: list[object]) -> None:
    first, second = COMPRESSORS[name](FIRST), COMPRESSORS[name](SECOND)
    whole = first + second
    assert rows(write(tmp_path, "in", whole)) == expected
    magic = len(compression_of(whole).magic)  # type: ignore[union-attr]
    for stop in range(1, len(whole)):
        path = write(tmp_path, "in", whole[:stop])
        if stop == len(first):
            assert len(rows(path)) == 1
            continue
        with pytest.raises(FastaFormatError) as caught:
            rows(path)
        if stop >= magic:
            assert f"the {name} file is cut short: it ends after {stop} bytes, within its data" in str(caught.value)


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("read_bytes", [1, 2, 3, 5, 7, 1 << 18])
def test_any_size_of_reads_and_pieces(
    name: str, read_bytes: int, tmp_path: Path, expected: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virnucpro.fasta_source.READ_BYTES", read_bytes)
    for constant in ("READ_BYTES", "PIECE_BYTES", "ZSTD_STEP_BYTES"):
        monkeypatch.setattr(compression, constant, read_bytes)
    pack = COMPRESSORS[name]
    assert rows(write(tmp_path, "in", pack(FIRST) + bytes(8) + pack(b"") + pack(SECOND) + bytes(4))) == expected


@pytest.mark.parametrize("name", COMPRESSORS)
def test_much_padding_hides_nothing(name: str, tmp_path: Path, expected: list[object]) -> None:
    pack = COMPRESSORS[name]
    assert rows(write(tmp_path, "in", pack(FIRST) + bytes(1 << 20) + pack(SECOND) + bytes(1 << 20))) == expected


@pytest.mark.parametrize("name", COMPRESSORS)
def test_damage_is_found_and_placed(name: str, tmp_path: Path) -> None:
    draw = random.Random(1)
    records = b"".join(b">p%d\n%s\n" % (i, bytes(draw.choices(b"ACDEFGHIKLMNPQRSTVWY", k=50))) for i in range(40_000))
    whole = COMPRESSORS[name](records)
    assert len(whole) > 2 * compression.READ_BYTES
    for position in (len(whole) // 2, len(whole) - 3):
        damaged = bytearray(whole)
        damaged[position] ^= 255
        with pytest.raises(FastaFormatError, match=f"damaged {name} data between bytes") as caught:
            deque(FastaSource(write(tmp_path, "in", bytes(damaged))).blocks(1000), maxlen=0)
        # A checksum may stand far behind the damage; it never stands before it.
        assert int(str(caught.value).split("between bytes ")[1].split()[2]) > position
        assert caught.value.line is not None and 1 < caught.value.line <= 80_001


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("rest", [b"MKV\n", b">b\nMKV\n", b"\x01", b"PK\x03\x04"])
def test_what_follows_the_data_is_not_dropped(name: str, rest: bytes, tmp_path: Path) -> None:
    packed = COMPRESSORS[name](FASTA)
    path = write(tmp_path, "in", packed + rest)
    with pytest.raises(FastaFormatError, match="something else follows from byte") as caught:
        rows_of_scan(path)
    assert f"from byte {len(packed) + 1} on" in str(caught.value)


def test_skippable_frames_of_zstd(tmp_path: Path, expected: list[object]) -> None:
    first, second = map(COMPRESSORS["zstd"], (FIRST, SECOND))
    large = b"\x5f\x2a\x4d\x18" + (600_000).to_bytes(4, "little") + bytes(600_000)
    for text in (SKIPPABLE + first + second, large + SKIPPABLE + first + SKIPPABLE + second + SKIPPABLE + large):
        assert rows(write(tmp_path, "in", text)) == expected
    assert rows(write(tmp_path, "in", SKIPPABLE)) == []
    for stop in range(4, len(SKIPPABLE)):
        with pytest.raises(FastaFormatError, match="cut short"):
            rows(write(tmp_path, "in", SKIPPABLE[:stop]))


def test_bgzf_is_gzip(tmp_path: Path, expected: list[object]) -> None:
    bgzf = pytest.importorskip("Bio.bgzf")
    with bgzf.BgzfWriter(tmp_path / "in.gz", "wb") as stream:
        stream.write(FASTA)
    assert rows(tmp_path / "in.gz") == expected


def wide_zstd(data: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed: bytes = compressor.compress(data) + compressor.flush()
    return packed


@pytest.mark.parametrize(
    ("packed", "remedy"),
    [
        (lzma.compress(FASTA, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]), "xz -dc FILE"),
        (wide_zstd(FASTA), "zstd -dc --long=31 FILE"),
    ],
    ids=["xz", "zstd"],
)
def test_a_window_larger_than_the_limit(packed: bytes, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(FastaFormatError, match="needs more than 128 MiB of memory to unpack") as caught:
        rows_of_scan(write(tmp_path, "in", packed))
    assert f"unpack it first: {remedy} > proteins.fasta" in str(caught.value)


@pytest.mark.parametrize("preset", [9, 9 | lzma.PRESET_EXTREME])
def test_the_largest_preset_of_xz_is_read(preset: int, tmp_path: Path, expected: list[object]) -> None:
    assert rows(write(tmp_path, "in", lzma.compress(FASTA, preset=preset))) == expected


def test_the_largest_level_of_zstd_is_read(tmp_path: Path, expected: list[object]) -> None:
    compressor = zstandard.ZstdCompressor(level=22).compressobj()
    assert rows(write(tmp_path, "in", compressor.compress(FASTA) + compressor.flush())) == expected


PEAK = """
import re, sys
from pathlib import Path
from virnucpro.fasta_source import FastaSource
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
total = sum(map(len, FastaSource(Path(sys.argv[1])).blocks(1 << 20)))
print(total, (peak() - before) >> 10)
"""


@pytest.mark.faults("a file that unpacks to a thousand times its size", "the FASTA reader", "read in bounded memory")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read as Linux tells it")
@pytest.mark.parametrize("name", COMPRESSORS)
def test_memory_is_bounded_whatever_a_file_unpacks_to(name: str, tmp_path: Path) -> None:
    """256 MiB that any of the four packs by a factor of a thousand or more."""
    block = b">a\n" + b"A" * ((1 << 25) - 4) + b"\n"
    path = write(tmp_path, "bomb", COMPRESSORS[name](block) * 8)
    assert path.stat().st_size < len(block) * 8 / 900
    done = subprocess.run(
        [sys.executable, "-c", PEAK, path], env={"PYTHONPATH": str(BIN)}, capture_output=True, text=True, check=True
    )
    total, mebibytes = map(int, done.stdout.split())
    assert total == len(block) * 8
    assert mebibytes < 200


def test_standard_input_is_read_packed(tmp_path: Path) -> None:
    for pack in COMPRESSORS.values():
        code = "from virnucpro.fasta import *; print(*[r.id for r in read_records(Path('-'))])"
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=pack(FASTA),
            env={"PYTHONPATH": str(BIN)},
            capture_output=True,
            check=True,
        )
        assert done.stdout == b"sp|P1|A sp|P2|B\n"


def test_nothing_inside(tmp_path: Path) -> None:
    for pack in COMPRESSORS.values():
        assert list(read_records(write(tmp_path, "in", pack(b"")))) == []


def test_damaged_header_of_gzip(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(FASTA))
    packed[2] = 0
    with pytest.raises(FastaFormatError, match="damaged gzip data between bytes 1 and") as caught:
        rows_of_scan(write(tmp_path, "in", bytes(packed)))
    assert caught.value.exit_code == ExitCode.BAD_DATA
