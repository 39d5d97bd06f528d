"""What a split changes, skips or rejects of its input is said: in the ledger, the summary and the last lines."""

from __future__ import annotations

import bz2
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from descriptions import describe

from virnucpro.config import SplitConfig
from virnucpro.errors import DataError, ExitCode, UsageError
from virnucpro.split.split import split

BIN = Path(__file__).parents[2] / "bin"
COLUMNS = ("id", "status", "length", "unknown_residues", "gaps_removed", "reason")


def make_config(folder: Path, text: bytes, **options: Any) -> SplitConfig:
    describe(layers=6, embed_dim=320).write(folder / "model.json")
    (folder / "input.fasta").write_bytes(text)
    return SplitConfig(
        inputs=(folder / "input.fasta",), outdir=folder / "split", model_json=folder / "model.json", **options
    )


def rows(config: SplitConfig) -> list[tuple[Any, ...]]:
    table = pq.read_table(config.outdir / "manifest.parquet", columns=list(COLUMNS))
    return [tuple(row[name] for name in COLUMNS) for row in table.to_pylist()]


GAPPED = b"# made by hand\n;\n>stop\nMKVL.\n>inner\nMK.VL-\n;c\n>plain\nMKVL\n>odd\nMK-J\n> \nMKVA\n"


@pytest.mark.parametrize(
    ("gaps", "expected", "said"),
    [
        (
            "remove",
            [
                ("stop", "embedded", 4, 0, 0, None),
                ("inner", "duplicate", 4, 0, 2, None),
                ("plain", "duplicate", 4, 0, 0, None),
                ("odd", "embedded", 3, 1, 1, None),
                ("", "embedded", 4, 0, 0, None),
            ],
            ["1 letters without a token (J, inner *) read as X", "3 gap characters (-, inner .) removed"],
        ),
        (
            "unknown",
            [
                ("stop", "embedded", 4, 0, 0, None),
                ("inner", "embedded", 6, 2, 0, None),
                ("plain", "duplicate", 4, 0, 0, None),
                ("odd", "embedded", 4, 2, 0, None),
                ("", "embedded", 4, 0, 0, None),
            ],
            ["4 letters without a token (J, inner *, gaps) read as X"],
        ),
        (
            "reject",
            [
                ("stop", "embedded", 4, 0, 0, None),
                ("inner", "rejected", None, None, None, "gap '.' in the sequence"),
                ("plain", "duplicate", 4, 0, 0, None),
                ("odd", "rejected", None, None, None, "gap '-' in the sequence"),
                ("", "embedded", 4, 0, 0, None),
            ],
            [],
        ),
    ],
)
def test_gaps_and_comments_leave_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gaps: str, expected: list[Any], said: list[str]
) -> None:
    config = make_config(tmp_path, GAPPED, gaps=gaps)
    summary = split(config).to_dict()
    assert rows(config) == expected
    assert summary["unknown_residues"] == sum(row[3] or 0 for row in expected)
    assert summary["gaps_removed"] == sum(row[4] or 0 for row in expected)
    assert summary["comment_lines"] == 3
    rejected = sum(row[1] == "rejected" for row in expected)
    last = f"{rejected} records rejected" + (": see rejected.tsv" if rejected else "")
    assert capsys.readouterr().out.splitlines()[3:] == [*said, "3 comment lines skipped", last]


def test_an_unknown_choice_for_gaps(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--gaps is 'keep', but must be one of remove, unknown, reject"):
        make_config(tmp_path, b">a\nMK\n", gaps="keep")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            b">a\nMK1\n>b\n",
            {},
            r"^all 2 records are rejected, so there is nothing to embed: \S+input.fasta, line 1: record 'a': symbol "
            r"'1' in the sequence; \S+input.fasta, line 3: record 'b': no residue left; correct the sequences$",
        ),
        (b">\n#\n", {}, r"^the only record is rejected.*: \S+input.fasta, line 1: a record without id: symbol '#'"),
        (b">a\nM-K\n" * 9, {"gaps": "reject"}, r"^all 9 .*line 5: record 'a': gap '-' in the sequence and so on; c"),
    ],
)
def test_a_run_in_which_everything_is_rejected_ends_with_65(
    tmp_path: Path, text: bytes, options: dict[str, Any], message: str
) -> None:
    config = make_config(tmp_path, text, shards_at_least=4, **options)
    with pytest.raises(DataError, match=message) as caught:
        split(config)
    assert caught.value.exit_code == ExitCode.BAD_DATA == 65
    assert list(config.outdir.iterdir()) == []


FAULTS = [
    (b">a\nMKV\n>b\rMKTLLV\r>c\nMAAA\n", "line 3: a carriage return that no line feed follows; convert the line ends"),
    (b">a\nMKV\nMK\r\r\nL\n", "line 3: a carriage return that no line feed follows; convert the line ends"),
    (b">a\r\nMKV\r\n>b\r\nMK\r", "line 4: a carriage return that no line feed follows; convert the line ends"),
    (b">a\nMKV>b two\nMKT\n", "line 2: '>' inside a sequence line: the line break before it is missing; put it in"),
    (b">a\nMKV\n\xef\xbb\xbf>b\nMKT\n", "line 3: a byte order mark (BOM) before '>'; remove it"),
    (b">a\nMK\n>b\xe2\x80\xa8>c\nMKT\n", "line 3: '>' in a header after a character that ends lines elsewhere"),
    (b">a\nMKV\n>b\nMK1\n", "line 3: record 'b': symbol '1' in the sequence; correct or remove it, or run without"),
    (b">a\nMKV\n>\nMK1\n", "line 3: a record without id: symbol '1' in the sequence; correct or remove it"),
]


@pytest.mark.parametrize(("text", "message"), FAULTS)
@pytest.mark.parametrize("compress", [bytes, bz2.compress])
@pytest.mark.parametrize("standard_input", [False, True])
def test_the_program_says_where_and_what_to_do(
    tmp_path: Path, text: bytes, message: str, standard_input: bool, compress: Callable[[bytes], bytes]
) -> None:
    text = compress(text)
    config = make_config(tmp_path, text)
    name = "-" if standard_input else "input.fasta"
    command = [
        sys.executable,
        BIN / "split_fasta.py",
        "--strict",
        "--model-json",
        "model.json",
        "--outdir",
        "split",
        name,
    ]
    run = subprocess.run(
        list(map(str, command)), input=text, cwd=tmp_path, env=os.environ, capture_output=True, check=False
    )
    assert run.returncode == ExitCode.BAD_DATA
    (line,) = run.stderr.decode().splitlines()
    file = "standard input" if standard_input else "input.fasta"
    assert line.startswith(f"split_fasta.py: error: {file}, {message}")
    assert list(config.outdir.iterdir()) == []
