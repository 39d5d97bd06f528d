from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro.errors import DataError, InputMissingError, LedgerError
from virnucpro.output.keys import KeyDigest, key_words
from virnucpro.output.ledger import LEDGER_SCHEMA, LedgerReader, LedgerWriter


def _rows(first: int, count: int) -> dict[str, object]:
    return {
        "ordinal": np.arange(first, first + count),
        "id": [f"p{i}" for i in range(first, first + count)],
        "file": ["a.fasta"] * count,
        "length": np.full(count, 7, np.int32),
        "status": ["embedded"] * count,
        "unique_index": np.arange(first, first + count),
    }


def test_rows_come_back_in_order_across_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    with LedgerWriter(path, {"records": 23}, row_group_rows=5) as ledger:
        for first, count in ((0, 3), (3, 11), (14, 0), (14, 9)):
            ledger.write(_rows(first, count))
    assert ledger.rows == 23
    assert pq.ParquetFile(path).metadata.num_row_groups == 5
    with LedgerReader(path) as reader:
        assert reader.rows == 23
        batches = list(reader.batches(["unique_index", "ordinal"], batch_rows=4))
    assert max(len(batch) for batch in batches) <= 4
    assert batches[0].schema.names == ["unique_index", "ordinal"]
    assert [value for batch in batches for value in batch["ordinal"].to_pylist()] == list(range(23))


def test_schema_is_kept_and_left_out_columns_are_null(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    with LedgerWriter(path) as ledger:
        ledger.write(pa.Table.from_pydict(_rows(0, 2)))
    table = pq.read_table(path)
    assert table.schema.equals(LEDGER_SCHEMA)
    assert table["reason"].null_count == table["reuse_row"].null_count == 2


def test_an_empty_ledger_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    with LedgerWriter(path):
        pass
    assert LedgerReader(path).rows == 0
    assert list(LedgerReader(path).batches()) == []


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), LedgerWriter(tmp_path / "manifest.parquet", row_group_rows=1) as ledger:
        ledger.write(_rows(0, 4))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_nothing_has_the_final_name_before_close(tmp_path: Path) -> None:
    ledger = LedgerWriter(tmp_path / "manifest.parquet", row_group_rows=1)
    ledger.write(_rows(0, 4))
    assert [path.name for path in tmp_path.iterdir()] == [".manifest.parquet.partial"]
    ledger.close()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.parquet"]


def test_an_unknown_column_is_named(tmp_path: Path) -> None:
    with LedgerWriter(tmp_path / "m.parquet") as ledger, pytest.raises(ValueError, match="lenght"):
        ledger.write({"ordinal": [1], "lenght": [2]})


def test_reader_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"nothing\.parquet"):
        LedgerReader(tmp_path / "nothing.parquet")
    (tmp_path / "text.parquet").write_text("ordinal\n1\n")
    with pytest.raises(DataError, match=r"text\.parquet"):
        LedgerReader(tmp_path / "text.parquet")
    pq.write_table(pa.table({"ordinal": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="sequence_key"):
        LedgerReader(tmp_path / "other.parquet")
    pq.write_table(
        LEDGER_SCHEMA.empty_table().cast(pa.schema([(n, pa.string()) for n in LEDGER_SCHEMA.names])),
        tmp_path / "text.parquet",
    )
    with pytest.raises(DataError, match="column ordinal is not int64"):
        LedgerReader(tmp_path / "text.parquet")


_KEYS = st.lists(st.integers(0, 2**128 - 1), max_size=40)


@given(_KEYS, st.randoms())
def test_digest_is_the_sum_whatever_the_order_and_the_chunks(keys: list[int], random: object) -> None:
    shuffled = list(keys)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    whole, pieces = KeyDigest(), KeyDigest()
    whole.add(pa.array([f"{key:032x}" for key in keys], pa.string()))
    column = pa.array([f"{key:032x}" for key in shuffled], pa.string())
    pieces.add(column[: len(keys) // 2])
    pieces.add(column[len(keys) // 2 :])
    assert whole == pieces
    assert whole.hexdigest() == f"{sum(keys) % 2**128:032x}"
    assert whole.count == len(keys)


def test_digest_sees_a_key_that_came_twice() -> None:
    once, twice = KeyDigest(), KeyDigest()
    once.add(pa.array(["0" * 31 + "1"]))
    twice.add(pa.array(["0" * 31 + "1"] * 2))
    assert once != twice


@pytest.mark.parametrize("bad", ["", "0" * 31, "0" * 33, "0" * 31 + "G", "0" * 31 + "A", None])
def test_a_malformed_key_is_an_error(bad: str | None) -> None:
    with pytest.raises(LedgerError):
        key_words(pa.array(["0" * 32, bad]))


def test_a_ledger_of_an_earlier_version_is_read_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    with LedgerWriter(path) as ledger:
        ledger.write({"ordinal": [0], "truncated": [True], "beyond_trained_length": [True]})
    with LedgerReader(path) as reader:
        assert reader.facts == ("ordinal", "id", "length", "truncated", "beyond_trained_length", "sequence_key")
    pq.write_table(pq.read_table(path).drop_columns("beyond_trained_length"), path)
    with LedgerReader(path, earlier=True) as reader:
        assert reader.facts == ("ordinal", "id", "length", "truncated", "sequence_key")
        assert [batch["truncated"].to_pylist() for batch in reader.batches(reader.facts)] == [[True]]
    with pytest.raises(DataError, match="it lacks the column beyond_trained_length; split the input again"):
        LedgerReader(path)
    pq.write_table(pq.read_table(path).drop_columns("truncated"), path)
    with pytest.raises(DataError, match="it lacks the column truncated; split the input again"):
        LedgerReader(path, earlier=True)
