from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_runs import Run, key, length, metadata, read_results, residues, vector, vectors

from virnucpro.errors import DataError, InputMissingError, LedgerError, UsageError
from virnucpro.output.schema import read_metadata
from virnucpro.pipeline import merge as merge_module
from virnucpro.pipeline.merge import merge


def _check(run: Run, **options: object) -> pa.Table:
    merge(run.config(**options))
    table = read_results(run.folder / "results")
    kept = run.kept()
    ordinals = [i for i, s in enumerate(run.sequences) if s is not None]
    assert table["ordinal"].to_pylist() == ordinals
    assert table["id"].to_pylist() == [f"p{i}" for i in ordinals]
    assert table["sequence_key"].to_pylist() == [key(s) for s in kept]
    assert table["length"].to_pylist() == [length(s) for s in kept]
    for name, dim in run.columns.items():
        expected = np.array([vector(s, dim, name) for s in kept], np.float32).reshape(len(kept), dim)
        np.testing.assert_array_equal(vectors(table, name), expected.astype(run.dtype))
    return table


def _random_records(count: int, distinct: int, rejected: float, seed: int) -> list[int | None]:
    """Records that repeat themselves a lot, in any order: lists drawn by hypothesis are mostly short."""
    generator = np.random.default_rng(seed)
    numbers = generator.integers(0, distinct, count).tolist()
    return [None if generator.random() < rejected else number for number in numbers]


sequence_numbers = st.builds(
    _random_records, st.integers(0, 80), st.integers(1, 40), st.sampled_from([0.0, 0.2, 1.0]), st.integers(0, 999)
)


@settings(max_examples=40)
@given(
    sequences=sequence_numbers,
    earlier=st.lists(st.lists(st.integers(0, 40), max_size=20), max_size=2),
    shards=st.integers(1, 5),
    group=st.integers(1, 7),
    window=st.integers(1, 3),
    part=st.integers(1, 400),
    spill=st.booleans(),
    dtype=st.sampled_from(["float32", "float16"]),
    two=st.booleans(),
)
def test_every_record_gets_its_vector_in_input_order(
    tmp_path_factory: pytest.TempPathFactory,
    sequences: list[int | None],
    earlier: list[list[int]],
    shards: int,
    group: int,
    window: int,
    part: int,
    spill: bool,
    dtype: str,
    two: bool,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    columns = {"embedding_mean_layer6": 3, "embedding_max_layer6": 3} if two else {"embedding": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge_module, "WINDOW_ROWS", window * group)
        if spill:
            patch.setattr(merge_module, "WANTED_BYTES", 64)
            patch.setattr(merge_module, "REQUEST_BYTES", 24)
            patch.setattr("virnucpro.output.layout.REUSE_BLOCK_ROWS", 4)
        before = []
        for number, rows in enumerate(earlier):
            past = Run(folder / f"earlier{number}", rows, shards=2, dtype=dtype, columns=columns)
            _check(past, row_group_rows=group, part_bytes=part)
            before.append((past.folder / "results", rows))
        run = Run(folder / "now", sequences, shards=shards, dtype=dtype, columns=columns, earlier=before)
        table = _check(run, row_group_rows=group, part_bytes=part)
    statuses = [status for status in run.statuses() if status != "rejected"]
    energy = np.array(table["energy_joules"].to_pylist(), np.float64)
    for status, shard, joules in zip(statuses, table["shard"].to_pylist(), energy, strict=True):
        assert (shard is None) == (status == "reused")
        assert (joules > 0) == (status == "embedded")
    summary = json.loads((run.folder / "results" / "metrics" / "run_summary.json").read_text())
    if run.unique:
        assert energy.sum() == pytest.approx(summary["energy_joules"], rel=1e-9)
    assert [path.name for path in run.folder.glob(".*")] == []


def test_rows_carry_the_metrics_of_their_shard_and_batch(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, 1, 2, 3, 4, 5, 1, 4], shards=2)
    table = _check(run)
    assert table["shard"].to_pylist() == [0, 0, 0, 1, 1, 1, 0, 1]
    assert table["device_name"].to_pylist() == [f"H100-{shard}" for shard in table["shard"].to_pylist()]
    assert table["device_utilization"].to_pylist() == [80.0 + shard for shard in table["shard"].to_pylist()]
    rates = {row["shard"]: row["tokens_per_second"] for row in _metrics(run, "batches").to_pylist()}
    assert table["batch_tokens_per_second"].to_pylist() == [rates[shard] for shard in table["shard"].to_pylist()]
    assert table["energy_joules"].to_pylist()[6:] == [0.0, 0.0]


def _metrics(run: Run, name: str) -> pa.Table:
    return pq.read_table(run.folder / "results" / "metrics" / f"{name}.parquet")


def test_unknown_energy_is_null_but_duplicates_cost_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, 1, 0], power=None)
    assert _check(run)["energy_joules"].to_pylist() == [None, None, 0.0]


def test_the_results_folder_is_whole(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, None, 1, 0], shards=2)
    (tmp_path / "rejected.tsv").write_text("file\tline\tordinal\tid\treason\na\t1\t1\tp1\tno residues\n")
    summary = merge(run.config())
    results = tmp_path / "results"
    assert sorted(str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()) == [
        "embeddings/part-00000.parquet",
        "manifest.parquet",
        "metrics/batches.parquet",
        "metrics/gpu_metrics.parquet",
        "metrics/run_summary.json",
        "metrics/shards.parquet",
        "rejected.tsv",
    ]
    assert (results / "manifest.parquet").read_bytes() == (tmp_path / "manifest.parquet").read_bytes()
    assert json.loads((results / "metrics" / "run_summary.json").read_text()) == summary
    assert [summary[key] for key in ("records", "embedded", "duplicate", "reused", "rejected")] == [4, 2, 1, 0, 1]
    assert summary["rows"] == 3
    assert _metrics(run, "shards")["shard"].to_pylist() == [0, 1]
    assert {d["name"] for d in summary["devices"]} == {"H100-0", "H100-1"}
    assert summary["energy_kwh"] == pytest.approx(summary["energy_joules"] / 3.6e6)
    assert summary["attention"] == ["twin"]


def test_flops_follow_the_formula(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, 1, 1])
    summary = merge(run.config())
    n = [7, 14]
    flops = sum(24 * 6 * 9 * m + 4 * 6 * 3 * m * m for m in n)
    seconds = summary["tokens"] / summary["tokens_per_second"]
    assert summary["tokens"] == sum(n)
    assert summary["teraflops_per_second"] == pytest.approx(flops / seconds / 1e12)


def test_metadata_lists_every_device(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, 1], shards=2)
    _rewrite(run, 1, facts=metadata(device_name="A100", attention="other"))
    merge(run.config())
    merged = read_metadata(tmp_path / "results" / "embeddings" / "part-00000.parquet")
    assert merged["device_name"] == "A100, H100"
    assert merged["attention"] == "other, twin"
    assert merged["weights_sha256"] == "ab" * 32
    assert merged["layers"] == [6]


def test_parts_hold_about_what_was_asked_for(tmp_path: Path) -> None:
    run = Run(tmp_path, list(range(50)), shards=3)
    _check(run, row_group_rows=4, part_bytes=12 * 12)
    parts = sorted((tmp_path / "results" / "embeddings").iterdir())
    assert [pq.read_metadata(part).num_rows for part in parts] == [12, 12, 12, 12, 2]
    assert pq.read_metadata(parts[0]).num_row_groups == 3


def test_everything_rejected_still_gives_a_readable_result(tmp_path: Path) -> None:
    run = Run(tmp_path, [None, None])
    assert _check(run).num_rows == 0


def test_residues_are_joined_by_key(tmp_path: Path) -> None:
    run = Run(tmp_path, [3, 4, 3, 5, 6], shards=2, residues=True)
    merge(run.config())
    table = pq.read_table(tmp_path / "results" / "residues")
    assert sorted(table["sequence_key"].to_pylist()) == sorted(key(s) for s in (3, 4, 5, 6))
    got = dict(zip(table["sequence_key"].to_pylist(), table["residues"].to_pylist(), strict=True))
    for sequence in (3, 4, 5, 6):
        np.testing.assert_array_equal(np.array(got[key(sequence)], np.float16), residues(sequence).astype(np.float16))


def _rewrite(run: Run, shard: int, **options: object) -> None:
    folder = run.folder / f"shard-{shard:05d}"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    run.write_shard(shard, **options)  # type: ignore[arg-type]


def _refused(run: Run, error: type[Exception], match: str, **options: object) -> None:
    with pytest.raises(error, match=match):
        merge(run.config(**options))
    assert not (run.folder / "results").exists()
    assert [path.name for path in run.folder.glob(".*")] == []


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, list(range(9)), shards=3)
    _refused(run, LedgerError, "shard 1: missing", shard_dirs=(tmp_path / "shard-00000", tmp_path / "shard-00002"))


def test_a_doubled_shard_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, list(range(9)), shards=3)
    copy = tmp_path / "again"
    copy.mkdir()
    (copy / "shard-00001").symlink_to(tmp_path / "shard-00001")
    _refused(run, LedgerError, "shard 1 is there twice", shard_dirs=(*run.shard_dirs(), copy / "shard-00001"))


def test_a_shard_of_another_split_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, list(range(9)), shards=3)
    (tmp_path / "shard-00007").symlink_to(tmp_path / "shard-00001")
    _refused(run, LedgerError, "shard 7: not of this split", shard_dirs=(*run.shard_dirs(), tmp_path / "shard-00007"))


def test_a_short_shard_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, list(range(9)), shards=3)
    _rewrite(run, 1, rows=2)
    _refused(run, LedgerError, "shard 1 .*2 vectors for 3 sequences from unique_index 3")


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "cd" * 32},
        {"precision": "bf16"},
        {"layers": [5]},
        {"pooling": ["max"]},
        {"max_length": 99},
        {"long_sequences": "full"},
    ],
)
def test_a_shard_embedded_differently_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    run = Run(tmp_path, list(range(9)), shards=3)
    _rewrite(run, 2, facts=metadata(**change))
    _refused(run, DataError, rf"shard 2 .*{next(iter(change))}")


def test_shards_of_another_model_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, [0])
    (tmp_path / "model.json").write_text(json.dumps({"name": "x", "layers": 6, "embed_dim": 3, "weights_sha256": "ee"}))
    _refused(run, DataError, "shard 0 .*weights_sha256")


def test_another_dtype_is_refused(tmp_path: Path) -> None:
    _refused(Run(tmp_path, [0]), DataError, "float32, not float16", embedding_dtype="float16")


def test_shards_in_swapped_folders_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, list(range(6)), shards=2)
    (tmp_path / "shard-00000").rename(tmp_path / "other")
    (tmp_path / "shard-00001").rename(tmp_path / "shard-00000")
    (tmp_path / "other").rename(tmp_path / "shard-00001")
    _refused(run, LedgerError, "shard 0 .*unique_index 3 where 0 belongs")


@pytest.mark.parametrize("name", ["embeddings.parquet", "summary.json", "batches.parquet", "gpu_metrics.parquet"])
@pytest.mark.parametrize("damage", ["remove", "cut"])
def test_a_damaged_shard_is_named(tmp_path: Path, name: str, damage: str) -> None:
    run = Run(tmp_path, list(range(6)), shards=2)
    path = tmp_path / "shard-00001" / name
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _refused(run, DataError, "shard[ -]0*1")


def _ledger_change(run: Run, column: str, ordinal: int, value: object) -> None:
    values = pa.array(run.ledger_columns()[column]).to_pylist()
    values[ordinal] = value
    run.rewrite_ledger(**{column: pa.array(values)})


@pytest.mark.parametrize(
    ("column", "ordinal", "value", "match"),
    [
        ("unique_index", 1, 2, "ordinal 1 is embedded, but its unique_index is not the next"),
        ("unique_index", 4, 3, "ordinal 4 is a duplicate of a sequence that has not come before"),
        ("unique_index", 4, None, "ordinal 4 is a duplicate of a sequence that has not come before"),
        ("unique_index", 4, 0, "ordinal 4 .* would get the vector of another sequence"),
        ("shard", 0, 1, "ordinal 0 names a shard that does not hold it"),
        ("status", 5, None, "ordinal 5 has no valid status"),
        ("status", 5, "lost", "ordinal 5 has no valid status"),
        ("reason", 3, None, "ordinal 3 is rejected without a reason"),
        ("sequence_key", 0, None, "not 32 hex digits"),
        ("sequence_key", 0, "0" * 32, "its keys are not those"),
        ("ordinal", 2, 7, "ordinal 7 is out of input order"),
        ("status", 4, "rejected", "rejected without a reason"),
        ("status", 5, "reused", "ordinal 5 is reused, but names no result"),
        ("truncated", 0, True, "truncated, but"),
    ],
)
def test_a_ledger_that_contradicts_itself_is_refused(
    tmp_path: Path, column: str, ordinal: int, value: object, match: str
) -> None:
    run = Run(tmp_path, [0, 1, 2, None, 1, 3, 0], shards=2)
    _ledger_change(run, column, ordinal, value)
    _refused(run, LedgerError, match)


def test_a_record_too_many_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "a", [0, 1, 2])
    longer = Run(tmp_path / "b", [0, 1, 2, 0])
    _refused(run, LedgerError, "4 records, but 3", manifest=longer.folder / "manifest.parquet")


def test_reuse_of_a_row_that_is_not_there_is_refused(tmp_path: Path) -> None:
    past = Run(tmp_path / "past", [0, 1])
    merge(past.config())
    run = Run(tmp_path / "now", [0, 2], earlier=[(past.folder / "results", [0, 1])])
    _ledger_change(run, "reuse_row", 0, 2)
    _refused(run, LedgerError, "ordinal 0 is reused from a row that the earlier results do not have")
    _ledger_change(run, "reuse_row", 0, 1)
    _refused(run, LedgerError, "ordinal 0 .* would get the vector of another sequence")


def test_reuse_of_other_weights_is_refused(tmp_path: Path) -> None:
    past = Run(tmp_path / "past", [0, 1])
    merge(past.config())
    run = Run(tmp_path / "now", [0, 2], earlier=[(past.folder / "results", [0, 1])])
    _rewrite(run, 0, facts={**metadata(), "precision": "fp16"})
    _refused(run, DataError, "precision is fp32, but fp16")


def test_reused_results_that_are_gone_are_named(tmp_path: Path) -> None:
    past = Run(tmp_path / "past", [0, 1])
    merge(past.config())
    run = Run(tmp_path / "now", [0, 2], earlier=[(past.folder / "results", [0, 1])])
    _refused(run, InputMissingError, "elsewhere", reuse=(tmp_path / "elsewhere",))


def test_results_that_are_there_are_spared(tmp_path: Path) -> None:
    run = Run(tmp_path, [0])
    merge(run.config())
    with pytest.raises(UsageError, match="not empty"):
        merge(run.config())
    assert read_results(tmp_path / "results").num_rows == 1


@pytest.mark.parametrize("name", ["manifest", "split_summary", "model_json"])
def test_missing_inputs_are_named(tmp_path: Path, name: str) -> None:
    _refused(Run(tmp_path, [0]), InputMissingError, "nowhere", **{name: tmp_path / "nowhere"})
