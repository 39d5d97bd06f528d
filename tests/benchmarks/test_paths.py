"""The table of forms follows what was measured last, where the forms are not alike."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from benchmarks.inputs import SHAPES
from benchmarks.pages.attention_sections import ALIKE
from benchmarks.pages.result_tables import number, read_rows

from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.layers import FusedLayer, PlainLayer
from virnucpro.model.parameters import LOW_STREAM_HEAD_DIM
from virnucpro.model.paths import FASTER, FUSED_FOR_ACCURACY, prefers_fused
from virnucpro.model.registry import MODELS, Esm2Config

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
PRECISIONS = ("fp16", "bf16", "fp8")
RATES = {
    (row["model"], row["precision"], row["path"]): number(row, "tokens_per_second")
    for row in read_rows(RESULTS / "paths.csv")
}


@pytest.mark.parametrize(("size", "precision"), list(itertools.product(SHAPES, PRECISIONS)))
def test_the_table_names_the_faster_form(size: str, precision: str) -> None:
    rates = {path: RATES[size, precision, path] or 0 for path in ("fused", "plain")}
    assert min(rates.values()) > 0
    assert rates[FASTER[SHAPES[size][1]][precision]] >= (1 - ALIKE) * max(rates.values())


def test_the_table_has_every_model_and_no_other() -> None:
    assert sorted(FASTER) == sorted({config.embed_dim for config in MODELS.values()})
    assert {config.embed_dim for config in MODELS.values() if config.head_dim <= LOW_STREAM_HEAD_DIM} == {
        FUSED_FOR_ACCURACY
    }


@pytest.mark.parametrize(
    ("width", "precision", "fused"),
    [
        (320, "bf16", True),  # for accuracy: the table has the plain form as the faster
        (480, "fp16", True),
        (482, "fp16", False),
        (4096, "fp16", False),
        (5120, "fp16", False),
        (5120, "fp8", True),
        (8192, "bf16", False),
        (1280, "fp32", False),
    ],
)
def test_a_width_is_taken_for_the_next_measured_one(width: int, precision: str, fused: bool) -> None:
    assert prefers_fused(Esm2Config("one", 1, width, 1), precision) == fused


@pytest.mark.gpu
@pytest.mark.parametrize(("width", "heads", "form"), [(480, 20, FusedLayer), (5120, 40, PlainLayer)])
def test_the_model_is_built_in_the_form_of_the_table(width: int, heads: int, form: type) -> None:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("no NVIDIA Hopper GPU")
    config = Esm2Config("one", 1, width, heads)
    state = {name: torch.zeros(shape) for name, shape in config.shapes().items()}
    assert isinstance(PackedEsm2.from_state(config, state, "fp16", "cuda")._layers[0], form)
