"""What the page counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_results import Run, make_results

from virnucpro.report.tallies import length_edges, length_histogram, tally_batches, tally_records


def test_every_record_is_counted_once(tmp_path: Path) -> None:
    results = make_results(tmp_path / "results", Run(records=1000))
    tally = tally_records(results / "manifest.parquet")
    assert tally.statuses == {"embedded": 920, "duplicate": 40, "reused": 20, "rejected": 20}
    assert tally.reasons == {"contains digits": 20}
    lengths = np.array(pq.read_table(results / "manifest.parquet")["length"])
    assert tally.truncated == (lengths > 1022).sum() > tally.beyond_trained_length == (lengths > 1500).sum() > 0
    assert tally.record_lengths.sum() == 980
    assert tally.embedded_lengths.sum() == 920


def test_every_batch_is_counted_once(tmp_path: Path) -> None:
    results = make_results(tmp_path / "results", Run(records=1000, shards=3))
    batches = pq.read_table(results / "metrics" / "batches.parquet")
    tally = tally_batches(results / "metrics" / "batches.parquet")
    assert sorted(tally.queue_states) == [0, 1, 2]
    assert sum(counts.total() for counts in tally.queue_states.values()) == batches.num_rows == tally.packing.sum()
    waits = zip(batches["queue_state"].to_pylist(), batches["wait_milliseconds"].to_pylist(), strict=True)
    assert sum(tally.waited.values()) == pytest.approx(
        sum(wait for state, wait in waits if state != "startup"), rel=1e-5
    )
    assert all(counts["startup"] == 1 for counts in tally.queue_states.values())
    assert all(counts["starved"] > 0 for counts in tally.queue_states.values())


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=60))
def test_no_length_is_lost_in_the_histogram(lengths: list[int]) -> None:
    counts = np.bincount(lengths, minlength=100_001)
    edges = length_edges(counts)
    assert length_histogram(counts, edges).sum() == len(lengths)
    assert (np.diff(edges) == edges[1]).all()
    assert edges[1] % 10 == 0
    assert len(edges) <= 83


def test_the_first_bin_holds_the_short(tmp_path: Path) -> None:
    counts = np.bincount([1, 9, 10, 25, 25], minlength=100_001)
    edges = length_edges(counts)
    assert length_histogram(counts, edges).tolist()[:3] == [2, 1, 2]


def test_an_empty_ledger_has_one_empty_bin() -> None:
    counts = np.zeros(100_001, np.int64)
    assert length_histogram(counts, length_edges(counts)).tolist() == [0]


def test_a_ledger_of_an_earlier_version_does_not_tell_what_is_too_long(tmp_path: Path) -> None:
    manifest = make_results(tmp_path / "results", Run(records=100)) / "manifest.parquet"
    pq.write_table(pq.read_table(manifest).drop_columns("beyond_trained_length"), manifest)
    tally = tally_records(manifest)
    assert tally.beyond_trained_length is None and tally.record_lengths.sum() == 98
