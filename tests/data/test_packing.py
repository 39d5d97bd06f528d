from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro.data.packing import pack, token_count
from virnucpro.shards import SPECIAL_TOKENS

BUDGET = 64


def items_of(lengths: list[int]) -> list[dict[str, str]]:
    return [{"id": str(index), "sequence": "A" * length} for index, length in enumerate(lengths)]


def lengths_of(packs: list[list[dict[str, str]]]) -> list[list[int]]:
    return [[len(item["sequence"]) for item in one] for one in packs]


def test_cls_and_eos_count() -> None:
    assert token_count({"sequence": "MKT"}) == 3 + SPECIAL_TOKENS == 5


@given(
    st.lists(st.integers(1, 100), max_size=40),
    st.sampled_from([1, 2, 3, 5, 7, BUDGET - 1, BUDGET, BUDGET + 1]),
    st.sampled_from([None, 1, 2, 3]),
)
def test_packs_conserve_order_and_budget(lengths: list[int], budget: int, most: int | None) -> None:
    items = items_of(lengths)
    packs = list(pack(items, budget, most))
    assert [item for one in packs for item in one] == items
    for one in packs:
        assert one and (most is None or len(one) <= most)
        assert sum(map(token_count, one)) <= budget or len(one) == 1


@given(st.lists(st.integers(1, 100), min_size=2, max_size=40))
def test_a_pack_ends_only_where_the_next_sequence_does_not_fit(lengths: list[int]) -> None:
    packs = list(pack(items_of(lengths), BUDGET))
    for one, following in pairwise(packs):
        assert sum(map(token_count, one)) + token_count(following[0]) > BUDGET


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([62], [[62]]),
        ([63], [[63]]),
        ([30, 30], [[30, 30]]),
        ([30, 31], [[30], [31]]),
        ([200, 1, 200, 1, 1], [[200], [1], [200], [1, 1]]),
        ([30] * 5, [[30, 30], [30, 30], [30]]),
        ([200] * 3, [[200], [200], [200]]),
    ],
)
def test_packs_at_the_budgets_edge(lengths: list[int], expected: list[list[int]]) -> None:
    assert lengths_of(list(pack(items_of(lengths), BUDGET))) == expected


def test_without_a_budget_only_the_number_of_sequences_limits() -> None:
    assert lengths_of(list(pack(items_of([500] * 5), None, 2))) == [[500, 500], [500, 500], [500]]


@pytest.mark.parametrize(("budget", "most"), [(0, None), (-1, None), (10, 0)])
def test_limits_below_one_are_refused_at_the_call(budget: int, most: int | None) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        pack([], budget, most)


def test_packing_is_lazy() -> None:
    def endless():
        while True:
            yield {"id": "s", "sequence": "A" * 30}

    assert len(next(pack(endless(), BUDGET))) == 2


@pytest.mark.parametrize("budget", [16_384, 65_536])
def test_sorted_input_fills_97_percent(budget: int) -> None:
    generator = random.Random(1)
    lengths = sorted((min(1022, int(generator.lognormvariate(5.7, 0.7)) + 10) for _ in range(20_000)), reverse=True)
    packs = list(pack(items_of(lengths), budget))
    full = packs[:-1]
    assert len(full) > 50
    assert sum(token_count(item) for one in full for item in one) / (len(full) * budget) >= 0.97
