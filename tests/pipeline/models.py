"""Small random ESM-2 models and packed batches for the pipeline's tests."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from esm import ESM2
from esm.data import Alphabet

from virnucpro.data import VarlenCollator
from virnucpro.data.packed_batch import PackedBatch

RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO"


def small_esm2(seed: int = 0, layers: int = 2, dim: int = 32, heads: int = 2) -> ESM2:
    torch.manual_seed(seed)
    return ESM2(layers, dim, heads, alphabet=Alphabet.from_architecture("ESM-1b")).eval()


def save_fair_esm(model: ESM2, path: Path) -> Path:
    """Write the model in fair-esm's own checkpoint layout."""
    from argparse import Namespace

    config = Namespace(
        encoder_layers=model.num_layers,
        encoder_embed_dim=model.embed_dim,
        encoder_attention_heads=model.attention_heads,
        token_dropout=True,
    )
    state = {f"encoder.sentence_encoder.{key}": value for key, value in model.state_dict().items()}
    state = {key.replace("sentence_encoder.lm_head", "lm_head"): value for key, value in state.items()}
    torch.save({"cfg": {"model": config}, "model": state}, path)
    return path


def random_sequences(count: int, seed: int, longest: int = 40) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(RESIDUES, k=rng.randint(1, longest))) for _ in range(count)]


def batch_of(sequences: list[str]) -> PackedBatch:
    items = [{"id": f"s{i}", "sequence": sequence, "file": ""} for i, sequence in enumerate(sequences)]
    return PackedBatch.from_dict(VarlenCollator(None, max_tokens=1 << 20)(items))


def fair_esm_mean(model: ESM2, sequence: str) -> torch.Tensor:
    """The reference: mean over residues of the last layer, the sequence alone."""
    _, _, tokens = Alphabet.from_architecture("ESM-1b").get_batch_converter()([("s", sequence)])
    with torch.no_grad():
        states = model(tokens, repr_layers=[model.num_layers])["representations"][model.num_layers]
    return states[0, 1 : len(sequence) + 1].mean(0)
