from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from benchmarks.measurements import tune

from virnucpro.kernels import tiles


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's table in its place."""
    copy = tmp_path / "tiles.json"
    copy.write_text(tiles.TABLE.read_text())
    monkeypatch.setattr(tiles, "TABLE", copy)
    tiles.read_table.cache_clear()
    yield copy
    tiles.read_table.cache_clear()


def test_rewriting_the_table_with_its_own_rows_leaves_the_file_as_it_is(table: Path) -> None:
    before = table.read_text()
    tune.write_table("9.0", tiles.read_table()["9.0"])
    tune.write_table("9.0", tiles.read_table("hopper_attention")["9.0"], "hopper_attention")
    tune.write_table("default", tiles.read_table("linear")["default"], "linear")
    assert table.read_text() == before


def test_another_architecture_joins_the_table(table: Path) -> None:
    known, rows = tiles.read_table(), [[64, 1_000_000, 64, 64, 4, 3]]
    tune.write_table("11.0", rows)
    tiles.read_table.cache_clear()
    assert tiles.read_table() == known | {"11.0": rows}


def test_tiles_that_do_not_fit_are_never_the_fastest() -> None:
    small, large = tiles.AttentionTiles(64, 32, 4, 2), tiles.AttentionTiles(128, 128, 8, 4)
    assert tune.fastest({large: math.inf, small: 3.0}, "heads of 64") == [64, 32, 4, 2]
    with pytest.raises(SystemExit, match="heads of 64: none of 1 choices fits this GPU; the table stays as it is"):
        tune.fastest({large: math.inf}, "heads of 64")


@pytest.mark.gpu
def test_tiles_that_do_not_fit_take_for_ever() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    assert tune.attend(128, 64, tiles.AttentionTiles(128, 128, 8, 4), 2, tokens=640) == math.inf


@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [16, 64])
def test_attention_is_timed(head_dim: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    milliseconds = tune.attend(head_dim, 64, tune.CHOICES[0], 2, tokens=640)
    assert 0 < milliseconds < math.inf


@pytest.mark.gpu
def test_attention_for_hopper_is_timed() -> None:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("no NVIDIA Hopper GPU")
    assert 0 < tune.attend_hopper(64, 512, tune.HOPPER_CHOICES[0], 2) < math.inf


@pytest.mark.gpu
def test_linear_layers_are_timed() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    for choice in (None, tiles.LinearTiles(64, 128, 32, 4, 4)):
        assert 0 < tune.multiply(320, choice, 2, tokens=640) < math.inf
    assert tune.multiply(320, tiles.LinearTiles(128, 256, 128, 8, 4), 2, tokens=640) == math.inf
