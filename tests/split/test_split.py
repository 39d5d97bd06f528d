"""The split as a whole: its files, its ledger, its faults."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash
from descriptions import describe
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro.config import GAPS, SplitConfig
from virnucpro.errors import DataError, ExitCode, FastaFormatError, InputMissingError, UsageError
from virnucpro.fasta import Record, read_records, scan_records
from virnucpro.output.keys import KeyDigest
from virnucpro.split import dedup, scan, write_shards
from virnucpro.split.split import split

FIXTURES = Path(__file__).parents[1] / "fixtures"
LAYERS, EMBED_DIM = 6, 320
FINISHED = {"shards", "manifest.parquet", "rejected.tsv", "split_summary.json"}


def make_config(folder: Path, *inputs: Path, **options: Any) -> SplitConfig:
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.json"
    describe(layers=LAYERS, embed_dim=EMBED_DIM).write(model)
    return SplitConfig(inputs=inputs, outdir=folder / "split", model_json=model, **options)


def read_shards(outdir: Path) -> list[list[tuple[int, str]]]:
    shards = []
    for path in sorted((outdir / "shards").iterdir()):
        lines = path.read_text().splitlines()
        assert path.read_bytes().endswith(b"\n")
        shards.append([(int(name[1:]), residues) for name, residues in zip(lines[::2], lines[1::2], strict=True)])
    return shards


def check(config: SplitConfig, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold everything a split wrote against a plain reading of its inputs; return the ledger."""
    limit, outdir = config.residue_limit, config.outdir
    assert {path.name for path in outdir.iterdir()} == FINISHED
    written = json.loads((outdir / "split_summary.json").read_text())
    assert written == summary | {"digest": written["digest"]}
    ledger = pq.read_table(outdir / "manifest.parquet").to_pylist()
    shards = read_shards(outdir)
    place = {unique: (k, residues) for k, shard in enumerate(shards) for unique, residues in shard}
    assert sorted(place) == list(range(sum(map(len, shards)))) == list(range(summary["embedded"]))
    records = [(str(path), record) for path in config.inputs for record in scan_records(path, gaps=config.gaps)]
    assert len(records) == len(ledger) == summary["records"]
    seen: dict[str, int] = {}
    for ordinal, ((file, record), row) in enumerate(zip(records, ledger, strict=True)):
        assert (row["ordinal"], row["id"], row["description"]) == (ordinal, record.id, record.description)
        assert row["file"] == file
        if not isinstance(record, Record):
            assert (row["status"], row["reason"]) == ("rejected", record.reason)
            assert all(row[name] is None for name in ("length", "sequence_key", "unique_index", "shard", "truncated"))
            continue
        residues = record.sequence[:limit]
        assert row["length"] == len(record.sequence)
        assert row["truncated"] == (residues != record.sequence)
        assert row["beyond_trained_length"] == (len(residues) > 1022)
        assert row["unknown_residues"] == record.unknown_residues
        assert row["gaps_removed"] == record.gaps_removed
        assert row["sequence_key"] == xxhash.xxh3_128_hexdigest(residues.encode())
        assert row["reason"] is row["reuse_source"] is row["reuse_row"] is None
        new = not config.deduplicate or residues not in seen
        if new:
            seen[residues] = len(seen) if config.deduplicate else ordinal
        assert row["status"] == ("embedded" if new else "duplicate")
        if config.deduplicate:
            assert row["unique_index"] == seen[residues]
        assert place[row["unique_index"]] == (row["shard"], residues)
    check_summary(summary, shards, ledger)
    return ledger


def operations(tokens: int, layers: int) -> int:
    return 24 * layers * EMBED_DIM**2 * tokens + 4 * layers * EMBED_DIM * tokens**2


def check_summary(summary: dict[str, Any], shards: list[list[tuple[int, str]]], ledger: list[dict[str, Any]]) -> None:
    statuses = Counter(row["status"] for row in ledger)
    assert {name: summary[name] for name in statuses} == statuses
    assert summary["rejected"] == statuses["rejected"]
    for column in ("unknown_residues", "gaps_removed"):
        assert summary[column] == sum(row[column] or 0 for row in ledger)
    assert len(summary["shards"]) == len(shards)
    first = 0
    for number, (described, shard) in enumerate(zip(summary["shards"], shards, strict=True)):
        lengths = [len(residues) for _, residues in shard]
        assert shard and shard == sorted(shard, key=lambda pair: (-len(pair[1]), pair[0]))
        assert described == {
            "shard": number,
            "file": f"shard-{number:05d}.fasta",
            "first_unique_index": first,
            "sequences": len(shard),
            "residues": sum(lengths),
            "tokens": sum(lengths) + 2 * len(shard),
            "cost": sum(operations(n + 2, max(summary["output"]["layers"])) for n in lengths),
        }
        first += len(shard)
    keys = [int(row["sequence_key"], 16) for row in ledger if row["status"] == "embedded"]
    assert summary["keys_digest"] == f"{sum(keys) % (1 << 128):032x}"
    digest = KeyDigest()
    import pyarrow as pa

    digest.add(pa.array([f"{key:032x}" for key in keys], pa.string()))
    assert digest.hexdigest() == summary["keys_digest"]


def test_fixtures_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("plain", "crlf", "residues", "rejects")
    config = make_config(tmp_path / "a b 'c'", *(FIXTURES / f"{name}.fasta" for name in names), shards_at_least=2)
    summary = split(config).to_dict()
    ledger = check(config, summary)
    assert (summary["records"], summary["rejected"], len(summary["shards"])) == (15, 4, 2)
    assert summary["embedded"] + summary["duplicate"] == 11
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith("4 records rejected: see rejected.tsv")
    rejected = (config.outdir / "rejected.tsv").read_text().splitlines()
    assert rejected[0] == "file\tline\tordinal\tid\treason"
    assert rejected[1] == f"{FIXTURES / 'rejects.fasta'}\t3\t9\tdigit\tsymbol '1' in the sequence"
    assert [int(row.split("\t")[2]) for row in rejected[1:]] == [
        row["ordinal"] for row in ledger if row["status"] == "rejected"
    ]


SEQUENCES = st.sampled_from(
    ["MKVL", "MKVL*", "mk-vl", "MKVLAAGHW", "MKVLAAGHQ", "MKVLAAG", "", "MK1", "MJK", "M*K", "Q", "W" * 40, "MK.V"]
)
RECORDS = st.lists(st.tuples(st.sampled_from(["a", "b b", "c", "", " d"]), SEQUENCES), min_size=1, max_size=25)


@settings(max_examples=60)
@given(
    files=st.lists(RECORDS, min_size=1, max_size=3),
    at_least=st.integers(1, 9),
    shard_residues=st.sampled_from([1, 7, 50, 10_000]),
    max_length=st.sampled_from([1, 7, 8, 1022]),
    deduplicate=st.booleans(),
    gaps=st.sampled_from(GAPS),
    block_bytes=st.sampled_from([1, 40, 1 << 20]),
    partition_records=st.sampled_from([1, 5, 1000]),
    window_bytes=st.sampled_from([1, 30, 1 << 20]),
)
def test_the_ledger_accounts_for_every_record(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[tuple[str, str]]],
    at_least: int,
    shard_residues: int,
    max_length: int,
    deduplicate: bool,
    gaps: str,
    block_bytes: int,
    partition_records: int,
    window_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("split")
    paths = []
    for number, records in enumerate(files):
        paths.append(folder / f"{number}.fasta")
        paths[-1].write_text("".join(f">{header}\n{sequence}\n" for header, sequence in records))
    paths[-1].write_text(paths[-1].read_text() + ">not rejected\nMKVL\n")
    config = make_config(
        folder / "run",
        *paths,
        shards_at_least=at_least,
        shard_residues=shard_residues,
        max_length=max_length,
        deduplicate=deduplicate,
        gaps=gaps,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "BLOCK_BYTES", block_bytes)
        patch.setattr("virnucpro.split.workers.Workers.fork", lambda self: None)
        patch.setattr(dedup, "PARTITION_RECORDS", partition_records)
        patch.setattr(dedup, "CHUNK_RECORDS", 3)
        patch.setattr(write_shards, "WINDOW_BYTES", window_bytes)
        summary = split(config).to_dict()
    check(config, summary)
    embedded = summary["embedded"]
    residues = sum(shard["residues"] for shard in summary["shards"])
    assert len(summary["shards"]) == min(embedded, max(at_least, -(-residues // shard_residues)))


def test_processes_write_the_same_bytes(
    tmp_path: Path, proteins: Any, write_fasta: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = proteins([5 + i % 90 for i in range(600)])
    path = write_fasta([(f"p{i}", sequences[i * 7 % 450]) for i in range(600)])
    alone = make_config(tmp_path / "alone", path, shards_at_least=3)
    monkeypatch.setattr(scan, "BLOCK_BYTES", 1 << 20)
    expected = split(alone).to_dict()
    monkeypatch.setattr(scan, "BLOCK_BYTES", 2000)
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for name, source in (("forked", path), ("gzip", packed)):
        config = make_config(tmp_path / name, source, shards_at_least=3)
        summary = split(config).to_dict()
        # The ledger's rows lie in other row groups, and the file is another.
        assert summary | {"digests": {}, "inputs": []} == expected | {"digests": {}, "inputs": []}
        check(config, summary)
        assert read_shards(config.outdir) == read_shards(alone.outdir)


def test_a_rerun_replaces_what_was_there(tmp_path: Path) -> None:
    config = make_config(tmp_path, FIXTURES / "plain.fasta", shards_at_least=2)
    split(config)
    (config.outdir / ".split.partial").mkdir()
    smaller = replace(config, shards_at_least=1)
    check(smaller, split(smaller).to_dict())


def test_long_sequences_stay_whole_if_asked(tmp_path: Path) -> None:
    config = make_config(tmp_path, FIXTURES / "plain.fasta", max_length=3, long_sequences="full")
    summary = split(config).to_dict()
    assert summary["truncated"] == 0
    check(config, summary)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("rejects.fasta", {"strict": True}, FastaFormatError, r"rejects.fasta, line 3: record 'digit'.*--strict"),
        ("nucleotide.fasta", {}, FastaFormatError, "line 1: nucleotide sequences .*translate"),
        ("no_header.fasta", {}, FastaFormatError, "line 1: not FASTA"),
        ("blank.fasta", {}, DataError, "no sequence in the input"),
        ("missing.fasta", {}, InputMissingError, "no such file"),
        ("plain.fasta", {"layers": (7,)}, UsageError, "--layers holds 7, but the model has layers 0 to 6"),
    ],
)
def test_faults_leave_nothing(
    tmp_path: Path, name: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    config = make_config(tmp_path, FIXTURES / name, **options)
    with pytest.raises(error, match=message):
        split(config)
    assert not config.outdir.exists() or not list(config.outdir.iterdir())


def test_model_description_must_be_one(tmp_path: Path) -> None:
    config = make_config(tmp_path, FIXTURES / "plain.fasta")
    config.model_json.write_text('{"layers": 6}')
    with pytest.raises(DataError, match=r"model\.json: embed_dim is missing; describe the model again"):
        split(config)
    config.model_json.unlink()
    with pytest.raises(InputMissingError, match=r"model\.json: not there; describe the model again") as caught:
        split(config)
    assert caught.value.exit_code == ExitCode.NO_INPUT


def test_an_empty_file_among_others_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config(tmp_path, FIXTURES / "blank.fasta", FIXTURES / "plain.fasta")
    check(config, split(config).to_dict())
    assert "blank.fasta: empty" in capsys.readouterr().err


def test_shards_read_back_as_records(tmp_path: Path) -> None:
    path = tmp_path / "poly.fasta"
    path.write_text(f">silk\n{'GA' * 30}\n>other\n{'MKVLWQRHYF' * 20}\n")
    config = make_config(tmp_path / "run", path, shards_at_least=2)
    split(config)
    shards = [list(read_records(shard)) for shard in sorted((config.outdir / "shards").iterdir())]
    assert [[(record.id, len(record.sequence)) for record in shard] for shard in shards] == [[("0", 60)], [("1", 200)]]


def test_keys_that_share_half_their_bits_stay_apart() -> None:
    high = np.array([7, 7, 7, 1, 7], np.uint64)
    low = np.array([2, 1, 2, 9, 1], np.uint64)
    assert dedup.first_appearances(high, low, 0).tolist() == [0, 1, 0, 3, 1]
    assert dedup.first_appearances(high << np.uint64(58), low, 2).tolist() == [0, 1, 0, 3, 1]
    known_high = np.array([3, 7, 7, 2**64 - 1, 2**64 - 1], np.uint64)
    known_low = np.array([1, 1, 3, 0, 8], np.uint64)
    ask_high = np.array([1, 7, 7, 7, 2**64 - 1], np.uint64)
    at, found = dedup._find(ask_high, np.array([9, 1, 2, 3, 8], np.uint64), known_high, known_low)
    assert found.tolist() == [False, True, False, True, True]
    assert at[found].tolist() == [1, 2, 4]


@pytest.mark.parametrize(("records", "bits"), [(1, 0), (1 << 18, 0), ((1 << 18) + 1, 1), (5_000_000, 5), (10**9, 12)])
def test_partitions_hold_a_quarter_million_keys_at_most(records: int, bits: int) -> None:
    assert dedup.partition_bits(records) == bits
    assert records / 2**bits <= dedup.PARTITION_RECORDS
