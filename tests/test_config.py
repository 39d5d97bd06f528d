"""What was asked for, in the one form that split, embedding, reuse and merge share."""

from __future__ import annotations

from pathlib import Path

import pytest

from virnucpro import Embedder
from virnucpro.config import EmbedConfig, SplitConfig, VectorConfig, absolute_layers
from virnucpro.errors import UsageError


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ((-1, 33), (33,)),
        ((33, -1), (33,)),
        ((-1,), (33,)),
        ((0, -34, 5), (0, 5)),
        ((33, 1, -33, -1, 0), (33, 1, 0)),
    ],
)
def test_layers_are_absolute_and_distinct_in_the_order_asked(asked: tuple[int, ...], numbers: tuple[int, ...]) -> None:
    assert absolute_layers(asked, 33) == numbers


@pytest.mark.parametrize("layer", [34, -35])
def test_a_layer_that_the_model_does_not_have_is_named(layer: int) -> None:
    with pytest.raises(UsageError, match=f"--layers holds {layer}, but the model has layers 0 to 33"):
        absolute_layers((1, layer), 33)


def test_poolings_are_distinct_in_the_order_asked() -> None:
    assert VectorConfig(pooling=("max", "mean", "max", "mean")).pooling == ("max", "mean")


def test_something_must_be_asked_for() -> None:
    for call in (lambda: absolute_layers((), 6), lambda: VectorConfig(layers=())):
        with pytest.raises(UsageError, match="--layers is empty"):
            call()
    with pytest.raises(UsageError, match="--pooling is empty"):
        VectorConfig(pooling=())


@pytest.mark.parametrize("name", ["threads", "workers", "cpus"])
def test_a_number_of_threads_or_processes_that_no_machine_has_is_refused(name: str) -> None:
    """Before any is started: a million of them would hold the machine."""
    given = {name: 1_000_000}
    with pytest.raises(UsageError, match=rf"^--{name} is 1,000,000, but must be at most 4,096$"):
        if name == "cpus":
            SplitConfig(inputs=(Path("a"),), model_json=Path(), **given)
        else:
            EmbedConfig(shard=Path(), model=Path(), model_json=Path(), outdir=Path(), **given)


def test_an_embedder_refuses_them_too() -> None:
    with pytest.raises(UsageError, match=r"^--threads is 1,000,000, but must be at most 4,096$"):
        Embedder(threads=1_000_000)
