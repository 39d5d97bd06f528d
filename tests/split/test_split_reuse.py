"""Earlier results: used where everything agrees, otherwise the difference is named and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from descriptions import describe
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro.config import SplitConfig
from virnucpro.errors import DataError, InputMissingError, UsageError
from virnucpro.output.digest_list import write_digests
from virnucpro.output.schema import encode_metadata, residues_schema, residues_type, results_schema
from virnucpro.split import dedup
from virnucpro.split.reuse import EarlierResults, ReuseIndex
from virnucpro.split.split import split

EMBED_DIM = 4
METADATA = {
    "weights_sha256": "ab" * 32,
    "precision": "fp16",
    "layers": [6],
    "pooling": ["mean"],
    "max_length": 1022,
    "long_sequences": "truncate",
}

WINDOWS = {"long_sequences": "window", "window_overlap": 255}


def write_results(
    folder: Path, parts: list[list[str]], dtype: str = "float32", *, residues: bool = False, **changes: Any
) -> Path:
    """Results as a finished run leaves them, for sequences given part by part."""
    (folder / "embeddings").mkdir(parents=True)
    schema = results_schema({"embedding": EMBED_DIM}, dtype, METADATA | changes)
    ordinal = 0
    for number, sequences in enumerate(parts):
        rows = []
        for sequence in sequences:
            key = xxhash.xxh3_128_hexdigest(sequence.encode())
            vector = np.zeros(EMBED_DIM, dtype)
            row = dict.fromkeys(schema.names) | {"ordinal": ordinal, "id": "x", "length": len(sequence)}
            row |= {"truncated": False, "beyond_trained_length": False}
            rows.append(row | {"sequence_key": key, "embedding": list(vector)})
            ordinal += 1
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / "embeddings" / f"part-{number:05d}.parquet")
    if residues:
        (folder / "residues").mkdir()
        kind = residues_schema({"residues": EMBED_DIM}, METADATA | changes)
        pq.write_table(kind.empty_table(), folder / "residues" / "part-00000.parquet")
    write_digests(folder, {}, {})
    return folder


def run(folder: Path, sequences: list[str], reuse: list[Path], **options: Any) -> tuple[dict[str, Any], list[Any]]:
    folder.mkdir(parents=True)
    fasta, model = folder / "input.fasta", folder / "model.json"
    fasta.write_text("".join(f">s{i}\n{sequence}\n" for i, sequence in enumerate(sequences)))
    describe(layers=6, embed_dim=EMBED_DIM).write(model)
    config = SplitConfig(inputs=(fasta,), outdir=folder, model_json=model, reuse=tuple(reuse), **options)
    summary = split(config).to_dict()
    return summary, pq.read_table(folder / "manifest.parquet").to_pylist()


def test_known_sequences_are_taken_over(tmp_path: Path) -> None:
    first = write_results(tmp_path / "first", [["MKVL", "MKVL"], ["QQQ"]])
    second = write_results(tmp_path / "second", [["WWW", "QQQ"]])
    summary, ledger = run(tmp_path / "run", ["QQQ", "NEW", "WWW", "MKVL", "NEW", "M1", "QQQ"], [first, second])
    assert [(r["status"], r["unique_index"], r["reuse_source"], r["reuse_row"]) for r in ledger] == [
        ("reused", None, 0, 2),
        ("embedded", 0, None, None),
        ("reused", None, 1, 0),
        ("reused", None, 0, 0),
        ("duplicate", 0, None, None),
        ("rejected", None, None, None),
        ("reused", None, 0, 2),
    ]
    assert (summary["reused"], summary["embedded"], summary["duplicate"]) == (4, 1, 1)
    assert [entry["used"] for entry in summary["reuse"]] == [True, True]
    assert (tmp_path / "run" / "shards" / "shard-00000.fasta").read_text() == ">0\nNEW\n"


def test_everything_reused_leaves_no_shard(tmp_path: Path) -> None:
    results = write_results(tmp_path / "first", [["MKVL", "QQQ"]])
    summary, ledger = run(tmp_path / "run", ["QQQ", "MKVL"], [results], shards_at_least=4)
    assert summary["shards"] == [] and list((tmp_path / "run" / "shards").iterdir()) == []
    assert [row["shard"] for row in ledger] == [None, None]


@pytest.mark.parametrize(
    ("written", "options", "message"),
    [
        ({"weights_sha256": "cd" * 32}, {}, "weights_sha256 is cdcdcdcdcdcd... there and abababababab... here"),
        ({}, {"precision": "bf16"}, "precision is fp16 there and bf16 here"),
        ({}, {"layers": (5,)}, "layers is 6 there and 5 here"),
        ({}, {"pooling": ("max",)}, "pooling is mean there and max here"),
        ({}, {"max_length": 10}, "max_length is 1022 there and 10 here"),
        ({}, {"long_sequences": "full"}, "long_sequences is truncate there and full here"),
        ({}, {"long_sequences": "window"}, "long_sequences is truncate there and window here"),
        (WINDOWS, WINDOWS | {"window_overlap": 7}, "window_overlap is 255 there and 7 here"),
        (WINDOWS, WINDOWS | {"max_length": 500, "window_overlap": 200}, "max_length is 1022 there and 500 here"),
        ({"dtype": "float16"}, {}, "embedding_dtype is 4 x float16 there and 4 x float32 here"),
        ({}, {"per_residue": True}, "--per_residue"),
    ],
)
def test_a_mismatch_is_named_and_embedded_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], written: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    results = write_results(tmp_path / "first", [["MKVL"]], **written)
    summary, ledger = run(tmp_path / "run", ["MKVL"], [results], **options)
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1 and str(results) in warning and message in warning
    assert summary["reuse"][0]["used"] is False and message in summary["reuse"][0]["reason"]
    assert ledger[0]["status"] == "embedded"


def test_the_user_reads_the_names_that_the_user_gave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    staged = [
        write_results(tmp_path / "reuse1" / "results", [["MKVL"]], precision="bf16"),
        write_results(tmp_path / "reuse2" / "results", [["QQQ"]]),
        write_results(tmp_path / "reuse3" / "results", [["WWW"]]),
    ]
    foreign = staged[2] / "embeddings" / "part-00000.parquet"
    pq.write_table(pa.table({"a": [1]}), foreign)
    names = ("/home/ann/old results", "/home/ann/fitting", "s3://ann/other/")
    summary, _ = run(tmp_path / "run", ["MKVL", "QQQ"], staged, reuse_names=names)
    assert [(entry["results"], entry["used"]) for entry in summary["reuse"]] == [
        (names[0], False),
        (names[1], True),
        (names[2], False),
    ]
    assert summary["reuse"][2]["reason"].startswith("s3://ann/other/embeddings/part-00000.parquet: no 'virnucpro'")
    warnings = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in warnings] == [names[0], names[2]]
    assert str(tmp_path) not in "".join(warnings) and str(tmp_path) not in json.dumps(summary["reuse"])
    foreign.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"^s3://ann/other/embeddings/part-00000\.parquet: unreadable"):
        run(tmp_path / "again", ["MKVL"], staged[2:], reuse_names=names[2:])
    with pytest.raises(InputMissingError, match=r"^/home/ann/nothing: no embeddings/"):
        run(tmp_path / "nothing", ["MKVL"], [tmp_path / "nowhere"], reuse_names=("/home/ann/nothing",))
    with pytest.raises(UsageError, match="1 names for 2 results to reuse; give one for each"):
        run(tmp_path / "few", ["MKVL"], staged[:2], reuse_names=names[:1])


@pytest.mark.parametrize(
    "options", [{"layers": (-1, 6)}, {"layers": (6, -1, 6)}, {"pooling": ("mean", "mean")}, {"layers": (-1,)}]
)
def test_what_is_asked_for_twice_is_one_vector_and_reused_as_such(tmp_path: Path, options: dict[str, Any]) -> None:
    results = write_results(tmp_path / "first", [["MKVL"]])
    summary, ledger = run(tmp_path / "run", ["MKVL"], [results], **options)
    assert (summary["output"]["layers"], summary["output"]["pooling"]) == ([6], ["mean"])
    assert summary["reuse"][0]["reason"] is None
    assert ledger[0]["status"] == "reused"


def test_a_source_keeps_its_number_when_another_is_not_used(tmp_path: Path) -> None:
    other = write_results(tmp_path / "other", [["MKVL"]], precision="bf16")
    fitting = write_results(tmp_path / "fitting", [["MKVL"]], residues=True)
    _, ledger = run(tmp_path / "run", ["MKVL"], [other, fitting], per_residue=True)
    assert (ledger[0]["reuse_source"], ledger[0]["reuse_row"]) == (1, 0)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("dim", [EMBED_DIM, EMBED_DIM + 1])
def test_residues_are_reused_in_both_forms_where_their_width_fits(tmp_path: Path, older: bool, dim: int) -> None:
    results = write_results(tmp_path / "first", [["MKVL"]], residues=True)
    kind = residues_schema({"residues": dim}, METADATA)
    if older:
        fields = [kind.field("sequence_key"), kind.field("length"), pa.field("residues", residues_type(dim), False)]
        kind = pa.schema(fields, metadata=encode_metadata(METADATA))
    pq.write_table(kind.empty_table(), results / "residues" / "part-00000.parquet")
    summary, _ = run(tmp_path / "run", ["MKVL"], [results], per_residue=True)
    reason = None if dim == EMBED_DIM else f"residues have no column residues of {EMBED_DIM} numbers"
    assert summary["reuse"][0]["reason"] == reason


def test_whole_sequences_do_not_depend_on_max_length(tmp_path: Path) -> None:
    results = write_results(tmp_path / "first", [["MKVL"]], long_sequences="full", max_length=5)
    _, ledger = run(tmp_path / "run", ["MKVL"], [results], long_sequences="full")
    assert ledger[0]["status"] == "reused"


@pytest.mark.parametrize("overlap", [None, 255])
def test_equal_windows_are_reused_however_they_were_asked_for(tmp_path: Path, overlap: int | None) -> None:
    results = write_results(tmp_path / "first", [["MKVL"]], **WINDOWS)
    _, ledger = run(tmp_path / "run", ["MKVL"], [results], long_sequences="window", window_overlap=overlap)
    assert ledger[0]["status"] == "reused"


def test_missing_and_damaged_results(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"nowhere: no embeddings/part-\*\.parquet"):
        run(tmp_path / "run", ["MKVL"], [tmp_path / "nowhere"])
    results = write_results(tmp_path / "first", [["MKVL"]])
    part = results / "embeddings" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"part-00000\.parquet: unreadable"):
        run(tmp_path / "again", ["MKVL"], [results])


@settings(max_examples=25)
@given(
    parts=st.lists(st.lists(st.sampled_from(["A", "C", "D", "E", "F", "G"]), max_size=5), min_size=1, max_size=3),
    sequences=st.lists(st.sampled_from(["A", "C", "D", "E", "F", "G", "H", "I", "1"]), min_size=1, max_size=20),
    deduplicate=st.booleans(),
    partition_records=st.sampled_from([1, 3, 1000]),
)
def test_each_record_has_one_source(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[list[str]],
    sequences: list[str],
    deduplicate: bool,
    partition_records: int,
) -> None:
    folder = tmp_path_factory.mktemp("reuse")
    results = write_results(folder / "first", parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup, "PARTITION_RECORDS", partition_records)
        if set(sequences) == {"1"}:
            with pytest.raises(DataError, match="nothing to embed"):
                run(folder / "run", sequences, [results], deduplicate=deduplicate)
            return
        summary, ledger = run(folder / "run", sequences, [results], deduplicate=deduplicate)
    known = [sequence for part in parts for sequence in part]
    for sequence, row in zip(sequences, ledger, strict=True):
        if sequence == "1":
            assert row["status"] == "rejected"
        elif sequence in known:
            assert (row["status"], row["reuse_row"]) == ("reused", known.index(sequence))
        else:
            assert row["status"] in ("embedded", "duplicate")
    new = [sequence for sequence in sequences if sequence not in known and sequence != "1"]
    assert summary["embedded"] == (len(set(new)) if deduplicate else len(new))
    assert summary["reused"] + summary["embedded"] + summary["duplicate"] + summary["rejected"] == len(sequences)


def test_partitions_are_small_where_earlier_results_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "PARTITION_RECORDS", 8)
    results = write_results(tmp_path / "results", [["M" * length for length in range(1, 129)]])
    index = ReuseIndex(tmp_path / "reuse.bin", {0: EarlierResults(results, "results")}, 1)
    sizes = [len(index.partition(number)[0]) for number in range(1 << index.bits)]
    assert sum(sizes) == 128 and max(sizes) < 32


def test_index_of_nothing(tmp_path: Path) -> None:
    index = ReuseIndex(tmp_path / "reuse.bin", {}, 0)
    assert [len(column) for column in index.partition(0)] == [0, 0, 0, 0]
