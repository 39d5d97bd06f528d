"""Checkpoints with the official models' names and shapes, as the hub lays them out, of any size in a few megabytes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from esm import ESM2
from model.esm2_reference import ALPHABET, hugging_face_config, hugging_face_state
from safetensors.torch import save_file
from torch import Tensor

from virnucpro.model.parameters import trained_inv_freq
from virnucpro.model.registry import MODELS


def save_official(name: str, folder: Path, *, dense: bool = False) -> Path:
    """Write a Hugging Face folder in the shapes of ``name``, with weights in fp16 that no one trained.

    Dense weights are random and lie in ``model.safetensors``. Those of others repeat one random column in each
    matrix, which ``pytorch_model.bin`` stores once: the file of 15B holds 13 MB, and is read like any other.
    """
    config = MODELS[name]
    folder.mkdir(parents=True)
    with torch.device("meta"):
        shape = ESM2(config.layers, config.embed_dim, config.heads, alphabet=ALPHABET)
    generator = torch.Generator().manual_seed(config.layers)
    state = {
        key: trained_inv_freq(config.head_dim) if key.endswith("inv_freq") else _weight(key, value, generator, dense)
        for key, value in hugging_face_state(shape).items()
    }
    (folder / "config.json").write_text(json.dumps(hugging_face_config(shape)))
    if dense:
        save_file(state, folder / "model.safetensors")
    else:
        torch.save(state, folder / "pytorch_model.bin")
    return folder


def _weight(key: str, like: Tensor, generator: torch.Generator, dense: bool) -> Tensor:
    stored = like.shape if dense or like.dim() == 1 else (like.shape[0], 1)
    value = torch.randn(stored, generator=generator) * 0.02
    is_scale = key.endswith(("LayerNorm.weight", "layer_norm_after.weight"))
    return (value + is_scale).half().expand(like.shape)
