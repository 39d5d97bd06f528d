"""Which records are beyond the length that models are trained on, by the program that the pipeline's task runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from split_program import ledger, split

LETTERS = "MKTLLVWAGHERSDPNIYQF" * 100
SEQUENCES = (LETTERS[:1021], LETTERS[:1022], LETTERS[:1023], "MK7", LETTERS[:1900], LETTERS[:1023].lower() + "*")
NONE = [False, False, False, None, False, False]
LONG = [False, False, True, None, True, True]


@pytest.mark.parametrize(
    ("options", "beyond", "truncated"),
    [
        ((), NONE, LONG),
        (("--max-length=100",), NONE, [True, True, True, None, True, True]),
        (("--max-length=1500",), LONG, [False, False, False, None, True, False]),
        (("--max-length=1023",), LONG, [False, False, False, None, True, False]),
        (("--long-sequences=full",), LONG, NONE),
        (("--long-sequences=full", "--max-length=100"), LONG, NONE),
        (("--long-sequences=window",), NONE, NONE),
        (("--long-sequences=window", "--max-length=100"), NONE, NONE),
        (("--long-sequences=window", "--max-length=1023"), LONG, NONE),
    ],
)
@pytest.mark.parametrize("form", ["plain", "wrapped"])
def test_each_record_tells(
    tmp_path: Path, options: tuple[str, ...], beyond: list[bool | None], truncated: list[bool | None], form: str
) -> None:
    width = 70 if form == "wrapped" else 2000
    bodies = ["\n".join(each[i : i + width] for i in range(0, len(each), width)) for each in SEQUENCES]
    (tmp_path / "in.fasta").write_text("".join(f">{i}\n{each}\n" for i, each in enumerate(bodies)))
    said = split(tmp_path, *options, tmp_path / "in.fasta")
    rows = ledger(tmp_path)
    assert [row["beyond_trained_length"] for row in rows] == beyond
    assert [row["truncated"] for row in rows] == truncated
    summary = json.loads((tmp_path / "split" / "split_summary.json").read_text())
    assert (summary["beyond_trained_length"], summary["truncated"]) == (beyond.count(True), truncated.count(True))
    told = f"{beyond.count(True)} beyond the 1022 residues that models are trained on"
    assert (told in said.splitlines()) == (beyond is LONG)
