"""Shards of equal cost: every sequence in one, none empty, the same whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro.shards import (
    cost_units,
    floating_point_operations,
    shard_count,
    shard_name,
    shard_starts,
    total_cost_units,
)


def test_cost_is_the_formula() -> None:
    for n, layers, d in ((3, 6, 320), (1024, 33, 1280), (40_000, 48, 5120)):
        units = int(cost_units(np.array([n], np.int32), d)[0])
        assert floating_point_operations(units, [layers], d) == 24 * layers * d**2 * n + 4 * layers * d * n**2


@pytest.mark.parametrize(("layers", "computed"), [((1,), 1), ((33, 1), 33), ((1, 20), 20), ((0,), 0)])
def test_layers_above_the_highest_asked_for_cost_nothing(layers: tuple[int, ...], computed: int) -> None:
    units = int(cost_units(np.array([100]), 1280)[0])
    expected = 24 * computed * 1280**2 * 100 + 4 * computed * 1280 * 100**2
    assert floating_point_operations(units, layers, 1280) == expected


@given(st.lists(st.integers(3, 50_000), max_size=20), st.sampled_from([320, 5120]))
def test_units_of_all_follow_from_the_sums(tokens: list[int], d: int) -> None:
    units = int(cost_units(np.array(tokens, np.int64), d).sum())
    assert total_cost_units(sum(tokens), sum(n * n for n in tokens), d) == units


@pytest.mark.parametrize(
    ("sequences", "wanted", "at_least", "shards"),
    [(0, 0, 4, 0), (3, 3, 1, 3), (3, 4, 1, 3), (9, 4, 1, 4), (9, 1, 4, 4), (2, 1, 4, 2)],
)
def test_count(sequences: int, wanted: int, at_least: int, shards: int) -> None:
    assert shard_count(sequences, wanted, at_least) == shards


@given(
    costs=st.lists(st.integers(1, 10_000), min_size=1, max_size=60),
    shards=st.integers(1, 60),
    chunk=st.integers(1, 61),
)
def test_starts(costs: list[int], shards: int, chunk: int) -> None:
    shards = min(shards, len(costs))
    array = np.array(costs, np.int64)
    chunks = [array[i : i + chunk] for i in range(0, len(array), chunk)]
    starts = shard_starts(chunks, len(costs), sum(costs), shards).tolist()
    assert starts == shard_starts([array], len(costs), sum(costs), shards).tolist()
    assert len(starts) == shards and starts[0] == 0
    assert all(a < b for a, b in zip(starts, [*starts[1:], len(costs)], strict=True))
    longest = max(costs)
    if longest * shards <= sum(costs):
        for a, b in zip(starts, [*starts[1:], len(costs)], strict=True):
            assert abs(sum(costs[a:b]) - sum(costs) / shards) <= longest + 1


def test_empty_chunks_and_no_sequences() -> None:
    assert shard_starts([], 0, 0, 0).tolist() == []
    empty = np.empty(0, np.int64)
    assert shard_starts([empty, np.array([5]), empty, np.array([5]), empty], 2, 10, 2).tolist() == [0, 1]


def test_names_sort() -> None:
    assert [shard_name(k) for k in (0, 12, 100_000)] == ["shard-00000", "shard-00012", "shard-100000"]
