from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro.errors import DataError, LedgerError, UsageError
from virnucpro.output.atomic import prepare_new_directory
from virnucpro.output.schema import embedding_columns, read_metadata, residue_columns, vector_columns
from virnucpro.output.writer import ShardWriter

METADATA = {"model": "tiny", "layers": [6]}


def keys(indices: np.ndarray) -> np.ndarray:
    return np.repeat(indices.astype(np.uint8)[:, None], 16, axis=1)


def _vectors(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dim), np.float32)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _read(path: Path, name: str) -> np.ndarray:
    column = pq.read_table(path)[name].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40),
    batch=st.integers(1, 11),
    group=st.integers(1, 9),
    dtype=st.sampled_from(["float32", "float16"]),
    seed=st.integers(0, 9),
)
def test_rows_in_any_order_come_back_sorted(
    tmp_path_factory: pytest.TempPathFactory, rows: int, batch: int, group: int, dtype: str, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("shard") / "shard-00003"
    mean, top = _vectors(rows, 3, seed), _vectors(rows, 5, seed + 100)
    order = np.random.default_rng(seed).permutation(rows)
    writer = ShardWriter(
        folder, {"embedding_mean_layer6": 3, "embedding_max_layer6": 5}, dtype, 70, rows, METADATA, False, group
    )
    for number, start in enumerate(range(0, rows, batch)):
        chosen = order[start : start + batch]
        vectors = {"embedding_mean_layer6": mean[chosen], "embedding_max_layer6": top[chosen]}
        writer.write(chosen + 70, vectors, number, keys(chosen + 70))
    path = writer.finish() / "embeddings.parquet"
    table = pq.read_table(path)
    assert table["unique_index"].to_pylist() == list(range(70, 70 + rows))
    assert pq.ParquetFile(path).metadata.num_row_groups == -(-rows // group)
    assert table["sequence_key"].to_pylist() == [bytes([70 + row]) * 16 for row in range(rows)]
    np.testing.assert_array_equal(_read(path, "embedding_mean_layer6"), mean.astype(dtype))
    np.testing.assert_array_equal(_read(path, "embedding_max_layer6"), top.astype(dtype))
    batches = np.empty(rows, np.int32)
    batches[order] = np.arange(rows) // batch
    assert table["batch"].to_pylist() == batches.tolist()
    assert _names(folder) == ["embeddings.parquet"]
    assert _names(folder.parent) == ["shard-00003"]


def test_metadata_and_columns_are_in_the_file(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "shard", {"embedding": 4}, "float16", 0, 1, METADATA)
    writer.write(np.array([0]), {"embedding": _vectors(1, 4)}, 0, keys(np.array([0])))
    path = writer.finish() / "embeddings.parquet"
    assert read_metadata(path) == METADATA
    assert vector_columns(pq.read_schema(path)) == {"embedding": 4}


def test_a_row_that_did_not_come_is_named(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "shard", {"embedding": 4}, "float32", 10, 3, METADATA)
    writer.write(np.array([12, 10]), {"embedding": _vectors(2, 4)}, 0, keys(np.array([12, 10])))
    with pytest.raises(LedgerError, match=r"1 of 3 sequences have no vector \(unique_index 11\)"):
        writer.finish()
    assert _names(tmp_path) == []


@pytest.mark.parametrize("indices", [[1, 1], [0], [2, 0]])
def test_a_row_that_came_twice_is_named(tmp_path: Path, indices: list[int]) -> None:
    with ShardWriter(tmp_path / "shard", {"embedding": 2}, "float32", 0, 3, METADATA) as writer:
        writer.write(np.array([0]), {"embedding": _vectors(1, 2)}, 0, keys(np.array([0])))
        with pytest.raises(LedgerError, match=r"unique_index \d came twice"):
            writer.write(np.array(indices), {"embedding": _vectors(len(indices), 2)}, 1, keys(np.array(indices)))


@pytest.mark.parametrize("index", [9, 13, -1])
def test_a_row_of_another_shard_is_refused(tmp_path: Path, index: int) -> None:
    with (
        ShardWriter(tmp_path / "shard", {"embedding": 2}, "float32", 10, 3, METADATA) as writer,
        pytest.raises(LedgerError, match=rf"unique_index {index} is outside"),
    ):
        writer.write(np.array([index]), {"embedding": _vectors(1, 2)}, 0, keys(np.array([index])))


@pytest.mark.parametrize("value", [np.nan, np.inf, 7e4])
def test_values_beyond_float16_are_an_error_with_the_remedy(tmp_path: Path, value: float) -> None:
    vectors = _vectors(3, 2)
    vectors[1, 1] = value
    with (
        ShardWriter(tmp_path / "shard", {"embedding": 2}, "float16", 0, 3, METADATA) as writer,
        pytest.raises(DataError, match=r"unique_index 1 are not finite.*--embedding_dtype float32"),
    ):
        writer.write(np.arange(3), {"embedding": vectors}, 0, keys(np.arange(3)))


def test_wrong_columns_and_shapes_are_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "shard", {"embedding": 2}, "float32", 0, 3, METADATA) as writer:
        with pytest.raises(ValueError, match="announced"):
            writer.write(np.arange(3), {"other": _vectors(3, 2)}, 0, keys(np.arange(3)))
        with pytest.raises(ValueError, match="shape"):
            writer.write(np.arange(3), {"embedding": _vectors(3, 5)}, 0, keys(np.arange(3)))


def test_abandoned_writer_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        ShardWriter(tmp_path / "shard", {"embedding": 2}, "float32", 0, 3, METADATA, {"residues": 2}) as writer,
    ):
        writer.write(np.array([1]), {"embedding": _vectors(1, 2)}, 0, keys(np.array([1])))
        writer.write_residues(np.array([1]), [{"residues": _vectors(4, 2)}])
        raise RuntimeError
    assert _names(tmp_path) == []


def test_residues_keep_their_shapes(tmp_path: Path) -> None:
    lengths = [5, 1, 3]
    residues = [_vectors(length, 4, length) for length in lengths]
    with ShardWriter(tmp_path / "shard", {"embedding": 4}, "float32", 7, 3, METADATA, {"residues": 4}) as writer:
        for row in (0, 2, 1):
            writer.write(np.array([7 + row]), {"embedding": residues[row].mean(0)[None]}, 0, keys(np.array([7 + row])))
            writer.write_residues(np.array([7 + row]), [{"residues": residues[row]}])
        writer.finish()
    assert _names(tmp_path / "shard") == ["embeddings.parquet", "residues"]
    table = pq.read_table(tmp_path / "shard" / "residues")
    assert table["sequence_key"].to_pylist() == [keys(np.array([index])).tobytes().hex() for index in (7, 9, 8)]
    assert table["length"].to_pylist() == [5, 3, 1]
    assert table["dim"].to_pylist() == [4, 4, 4]
    for row, got in zip((0, 2, 1), table["residues"].to_pylist(), strict=True):
        assert got == residues[row].astype("<f2").tobytes()


def test_residues_whose_vectors_did_not_come_are_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "shard", {"embedding": 4}, "float32", 0, 2, METADATA, {"residues": 4}) as writer:
        writer.write(np.array([0]), {"embedding": _vectors(1, 4)}, 0, keys(np.array([0])))
        with pytest.raises(LedgerError, match="residues of unique_index 1 without their vectors"):
            writer.write_residues(np.array([1]), [{"residues": _vectors(3, 4)}])


def test_missing_residues_are_an_error(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "shard", {"embedding": 4}, "float32", 0, 2, METADATA, {"residues": 4}) as writer:
        writer.write(np.arange(2), {"embedding": _vectors(2, 4)}, 0, keys(np.arange(2)))
        writer.write_residues(np.array([1]), [{"residues": _vectors(3, 4)}])
        with pytest.raises(LedgerError, match="1 of 2 sequences have residues"):
            writer.finish()
    assert _names(tmp_path) == []


def test_what_stands_beside_is_written_before_the_rename(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "shard", {"embedding": 4}, "float32", 0, 2, METADATA) as writer:
        writer.write(np.arange(2), {"embedding": _vectors(2, 4)}, 0, keys(np.arange(2)))
        assert writer.finish(lambda folder: (folder / "summary.json").write_text("{}")) == tmp_path / "shard"
    assert _names(tmp_path / "shard") == ["embeddings.parquet", "summary.json"]


def test_a_failure_beside_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device", str(folder))

    with ShardWriter(tmp_path / "shard", {"embedding": 4}, "float32", 0, 2, METADATA) as writer:
        writer.write(np.arange(2), {"embedding": _vectors(2, 4)}, 0, keys(np.arange(2)))
        with pytest.raises(OSError, match="No space"):
            writer.finish(fail)
    assert _names(tmp_path) == []


def test_a_shard_without_sequences_is_written(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "shard", {"embedding": 4}, "float16", 0, 0, METADATA, {"residues": 4}) as writer:
        writer.finish()
    assert pq.read_table(tmp_path / "shard" / "embeddings.parquet").num_rows == 0


def test_column_names() -> None:
    assert embedding_columns(["mean"], [33]) == ("embedding",)
    assert embedding_columns(["mean", "max"], [33]) == ("embedding_mean_layer33", "embedding_max_layer33")
    assert embedding_columns(["bos"], [0, 33]) == ("embedding_bos_layer0", "embedding_bos_layer33")
    assert residue_columns([33]) == ("residues",)
    assert residue_columns([0, 33]) == ("residues_layer0", "residues_layer33")


def test_a_new_directory_clears_a_killed_runs_leftover_and_spares_results(tmp_path: Path) -> None:
    (tmp_path / ".results.partial" / "embeddings").mkdir(parents=True)
    (tmp_path / ".results.partial" / "embeddings" / "part-00000.parquet").write_text("half")
    (tmp_path / "results").mkdir()
    assert _names(prepare_new_directory(tmp_path / "results")) == []
    (tmp_path / "results" / "mine").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        prepare_new_directory(tmp_path / "results")
