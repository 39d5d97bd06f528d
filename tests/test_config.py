"""What was asked for, in the one form that split, embedding, reuse and merge share."""

from __future__ import annotations

import pytest

from virnucpro.config import VectorConfig, absolute_layers
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
