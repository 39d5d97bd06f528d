from __future__ import annotations

import json

import pytest
import torch

from virnucpro.kernels import tiles

ROWS = [[16, 256, 1, 1, 1, 1], [16, 1_000_000, 2, 2, 2, 2], [64, 128, 3, 3, 3, 3], [64, 512, 4, 4, 4, 4]]


@pytest.mark.parametrize(
    ("head_dim", "longest", "expected"),
    [(16, 256, 1), (16, 257, 2), (8, 9000, 2), (24, 128, 3), (64, 129, 4), (64, 9000, 4), (128, 9000, 4)],
)
def test_the_next_larger_row_holds(head_dim: int, longest: int, expected: int) -> None:
    assert tiles.choose(ROWS, head_dim, longest) == [expected] * 4


@pytest.mark.parametrize(
    ("kernel", "sizes"),
    [("attention", tiles.AttentionTiles), ("hopper_attention", tiles.HopperAttentionTiles)],
)
def test_every_row_of_the_table_is_whole_and_ascending(kernel: str, sizes: type) -> None:
    for rows in json.loads(tiles.TABLE.read_text())[kernel].values():
        assert all(len(row) == 2 + len(sizes._fields) for row in rows)
        assert [row[:2] for row in rows] == sorted(row[:2] for row in rows)


def test_every_row_of_the_linear_layers_is_whole_and_ascending() -> None:
    for rows in tiles.read_table("linear").values():
        assert all(len(row) == 1 + len(tiles.LinearTiles._fields) for row in rows)
        assert [row[0] for row in rows] == sorted({row[0] for row in rows})


def test_fp32_has_tiles_of_its_own() -> None:
    assert tiles.attention_tiles(torch.empty(0, dtype=torch.float32), 64, 100) == tiles.EXACT
    assert tiles.attention_tiles(torch.empty(0, dtype=torch.float16), 64, 100) != tiles.EXACT


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ((7, 5), "default"),
        ((8, 0), "8.0"),
        ((8, 6), "8.6"),
        ((8, 7), "8.6"),
        ((8, 9), "8.6"),
        ((9, 0), "9.0"),
        ((10, 3), "10.0"),
        ((11, 0), "default"),
        ((12, 1), "12.0"),
    ],
)
def test_a_card_has_the_rows_of_the_nearest_below_it_of_its_major_version(card: tuple[int, int], expected: str) -> None:
    table = tiles.read_table()
    assert tiles.rows_for(table, card) is table[expected]


def test_a_tenth_minor_version_comes_after_the_ninth() -> None:
    table = {"default": [[0]], "8.2": [[1]], "8.10": [[2]]}
    assert tiles.rows_for(table, (8, 9)) == [[1]]
    assert tiles.rows_for(table, (8, 11)) == [[2]]
