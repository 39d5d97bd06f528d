"""What the merge must refuse, naming the shard or record, and leaving nothing behind."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from descriptions import describe
from merge.merge_runs import Run, metadata, read_results

from virnucpro.errors import DataError, InputMissingError, LedgerError, UsageError
from virnucpro.merge.merge import merge


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
    run.rewrite_shard(1, rows=2)
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
    run.rewrite_shard(2, facts=metadata(**change))
    _refused(run, DataError, rf"shard 2 .*{next(iter(change))}")


def test_shards_of_another_model_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, [0])
    describe(weights_sha256="ee").write(tmp_path / "model.json")
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
    run.write_summary()


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
        ("beyond_trained_length", 0, True, "beyond_trained_length, but"),
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
    _refused(run, DataError, "not as it was written", manifest=longer.folder / "manifest.parquet")
    (run.folder / "manifest.parquet").write_bytes((longer.folder / "manifest.parquet").read_bytes())
    run.write_summary()
    _refused(run, LedgerError, "4 records, but 3")


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
    run.rewrite_shard(0, facts={**metadata(), "precision": "fp16"})
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


@pytest.mark.parametrize("name", ["manifest", "rejected", "split_summary", "model_json"])
def test_missing_inputs_are_named(tmp_path: Path, name: str) -> None:
    _refused(Run(tmp_path, [0]), InputMissingError, "nowhere", **{name: tmp_path / "nowhere"})
