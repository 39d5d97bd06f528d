"""Checkpoints with the official models' names and shapes, as the hub lays them out, of any size in a few megabytes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from esm import ESM2
from model.esm2_reference import ALPHABET, hugging_face_config, hugging_face_state
from safetensors.torch import save_file
from torch import Tensor
from transformers import EsmConfig, EsmModel

from virnucpro.model.families import ESM_1B, ESM_2
from virnucpro.model.parameters import trained_inv_freq
from virnucpro.model.registry import MODELS, Esm2Config


def save_official(name: str, folder: Path, *, dense: bool = False) -> Path:
    """Write a Hugging Face folder in the shapes of ``name``, with weights in fp16 that no one trained.

    Dense weights are random and lie in ``model.safetensors``. Those of others repeat one random column in each
    matrix, which ``pytorch_model.bin`` stores once: the file of 15B holds 13 MB, and is read like any other.
    """
    config = MODELS[name]
    folder.mkdir(parents=True)
    with torch.device("meta"):
        named, settings = _esm2(config) if config.family is ESM_2 else _esm1(config)
    generator = torch.Generator().manual_seed(config.layers)
    state = {
        key: trained_inv_freq(config.head_dim) if key.endswith("inv_freq") else _weight(key, value, generator, dense)
        for key, value in named.items()
    }
    (folder / "config.json").write_text(json.dumps(settings))
    if dense:
        save_file(state, folder / "model.safetensors")
    else:
        torch.save(state, folder / "pytorch_model.bin")
    return folder


def _esm2(config: Esm2Config) -> tuple[dict[str, Tensor], dict[str, object]]:
    model = ESM2(config.layers, config.embed_dim, config.heads, alphabet=ALPHABET)
    return hugging_face_state(model), hugging_face_config(model)


def _esm1(config: Esm2Config) -> tuple[dict[str, Tensor], dict[str, object]]:
    """ESM-1b or ESM-1v, as transformers names it."""
    settings = EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=config.embed_dim,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.embed_dim,
        max_position_embeddings=1026,
        position_embedding_type="absolute",
        emb_layer_norm_before=config.family is ESM_1B,
        token_dropout=True,
        layer_norm_eps=1e-5,
    )
    model = EsmModel(settings, add_pooling_layer=False)
    floating = {f"esm.{key}": value for key, value in model.state_dict().items() if value.is_floating_point()}
    return floating, settings.to_dict()


def _weight(key: str, like: Tensor, generator: torch.Generator, dense: bool) -> Tensor:
    stored = like.shape if dense or like.dim() == 1 else (like.shape[0], 1)
    value = torch.randn(stored, generator=generator) * 0.02
    is_scale = key.endswith(("LayerNorm.weight", "layer_norm_after.weight", "layer_norm.weight"))
    return (value + is_scale).half().expand(like.shape)
