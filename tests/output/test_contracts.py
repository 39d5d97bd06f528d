"""What processes hand to each other in JSON: the same bytes as ever, checked when read, documented."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from descriptions import describe

from virnucpro.errors import DataError, ExitCode, InputMissingError
from virnucpro.output.contracts import (
    ModelDescription,
    PlannedShard,
    ReuseEntry,
    RunSummary,
    ShardRun,
    ShardSummary,
    SplitSummary,
    VectorFacts,
)
from virnucpro.output.records import Record

PAGE = (Path(__file__).parents[2] / "docs" / "output.md").read_text()
MODEL = """{
  "name": "tiny",
  "revision": null,
  "source": "fair-esm",
  "family": "ESM-2",
  "layers": 6,
  "embed_dim": 3,
  "heads": 1,
  "weights_sha256": "ab",
  "parameters": 9,
  "left_out": [],
  "files": [
    "tiny.pt"
  ],
  "digest": "DIGEST"
}
"""
SPLIT = SplitSummary(
    records=2,
    residues=6,
    embedded=1,
    duplicate=0,
    reused=1,
    rejected=0,
    truncated=0,
    beyond_trained_length=0,
    unknown_residues=0,
    gaps_removed=0,
    comment_lines=0,
    stopped_frames=0,
    share_saved=0.5,
    max_length=1022,
    long_sequences="truncate",
    window_overlap=None,
    keys_digest="00",
    digests={"manifest.parquet": "00"},
    output=VectorFacts(layers=[6], pooling=["mean"], precision="fp16", embedding_dtype="float32", per_residue=False),
    shards=[
        PlannedShard(shard=0, file="shard-00000.fasta", first_unique_index=0, sequences=1, residues=3, tokens=5, cost=9)
    ],
    reuse=[ReuseEntry(results="old", used=True, reason=None)],
    card="h100",
    card_teraflops=535.0,
)


def test_a_record_is_written_as_it_always_was(tmp_path: Path) -> None:
    describe(weights_sha256="ab").write(tmp_path / "model.json")
    written = (tmp_path / "model.json").read_text()
    assert re.sub(r'(?<="digest": ")[0-9a-f]{32}(?=")', "DIGEST", written) == MODEL
    SPLIT.write(tmp_path / "split_summary.json")
    written = (tmp_path / "split_summary.json").read_text()
    assert written.startswith('{\n "pipeline_version": "')
    assert list(json.loads(written)) == [
        *("pipeline_version", "records", "residues", "embedded", "duplicate", "reused", "rejected", "truncated"),
        "beyond_trained_length",
        *("unknown_residues", "gaps_removed", "comment_lines", "stopped_frames", "keys_digest"),
        *("share_saved", "max_length", "long_sequences", "window_overlap", "digests", "inputs", "output", "shards"),
        *("reuse", "card", "card_teraflops", "digest"),
    ]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    for record in (describe(), SPLIT):
        record.write(tmp_path / "record.json")
        assert type(record).read(tmp_path / "record.json") == record


def changed(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The split's summary with another value at ``path``; without it where the value is ``...``."""
    content = SPLIT.to_dict()
    inner: Any = content
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("records",), ..., "records is missing"),
        (("recrods",), 1, "recrods is not known here"),
        (("records",), "2", 'records is "2", but must be a whole number'),
        (("records",), True, "records is true, but must be a whole number"),
        (("records",), 2.0, "records is 2.0, but must be a whole number"),
        (("records",), None, "records is null, but must be a whole number"),
        (("share_saved",), "half", 'share_saved is "half", but must be a number'),
        (("shards",), {}, "shards is {}, but must be a list"),
        (("shards", 0), [], r"shards\[0\] is not a JSON object"),
        (("shards", 0, "cost"), ..., r"shards\[0\]\.cost is missing"),
        (("shards", 0, "price"), 1, r"shards\[0\]\.price is not known here"),
        (("output", "layers", 0), "6", r'output\.layers\[0\] is "6", but must be a whole number'),
        (("output", "per_residue"), 0, r"output\.per_residue is 0, but must be true or false"),
        (("reuse", 0, "reason"), 1, r"reuse\[0\]\.reason is 1, but must be a text"),
    ],
)
def test_a_field_that_is_wrong_is_named(tmp_path: Path, path: tuple[str | int, ...], value: object, fault: str) -> None:
    file = tmp_path / "split_summary.json"
    file.write_text(json.dumps(changed(path, value)))
    with pytest.raises(
        DataError, match=rf"split_summary\.json: {fault}; split the input again with split_fasta\.py$"
    ) as caught:
        SplitSummary.read(file)
    assert caught.value.exit_code == ExitCode.BAD_DATA


@pytest.mark.parametrize("text", ["", "[]", "{", "nonsense", '{"name": NaN}', "\udcff"])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "model.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"model\.json: .*; describe the model again with fetch_model\.py$"):
        ModelDescription.read(file)


def test_a_file_that_is_not_there_is_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"nowhere\.json: not there; merge again") as caught:
        RunSummary.read(tmp_path / "nowhere.json")
    assert caught.value.exit_code == ExitCode.NO_INPUT


def test_whole_numbers_are_numbers_too(tmp_path: Path) -> None:
    file = tmp_path / "split_summary.json"
    file.write_text(json.dumps(changed(("share_saved",), 0)))
    assert SplitSummary.read(file).share_saved == 0


def test_each_file_says_what_to_do_where_it_is_wrong() -> None:
    for record in (ModelDescription, SplitSummary, ShardSummary, RunSummary):
        assert record._remedy
    assert issubclass(ShardSummary, ShardRun)


@pytest.mark.parametrize(
    ("heading", "record"),
    [
        ("model.json", ModelDescription),
        ("split_summary.json", SplitSummary),
        ("summary.json of a shard", ShardSummary),
        ("metrics/run_summary.json", RunSummary),
    ],
)
def test_every_field_is_documented(heading: str, record: type[Record]) -> None:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
    documented = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))))
    assert documented - {"digest"} == {each.name for each in fields(record)}  # type: ignore[arg-type]
