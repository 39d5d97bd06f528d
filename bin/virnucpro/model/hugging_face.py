"""Hugging Face's form of an ESM-2: what config.json must say, and its names of the encoder's parts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from virnucpro.errors import ModelError
from virnucpro.model.checkpoint_files import load_json
from virnucpro.model.families import ADVICE, CONFIG_FAMILIES, ESM_1B
from virnucpro.model.parameters import inv_freq_key
from virnucpro.model.registry import VOCABULARY_SIZE, Esm2Config

_NAMES: Final = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.self.rotary_embeddings": "self_attn.rot_emb",
    "attention.output.dense": "self_attn.out_proj",
    "attention.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "LayerNorm": "final_layer_norm",
}
_LAYER: Final = re.compile(r"^encoder\.layer\.(\d+)\.(.+)\.(weight|bias|inv_freq|gamma|beta)$")
#: Some versions of transformers write a LayerNorm's parameters under TensorFlow's names.
_LAYER_NORM_PARTS: Final = {"gamma": "weight", "beta": "bias"}
#: One set of frequencies for all layers; transformers 5 writes the second name, asterisk and all.
SHARED_INV_FREQ: Final = (
    "rotary_embeddings.inv_freq",
    "encoder.layer.*.attention.self.rotary_embeddings.inv_freq",
)
#: What config.json must say for the encoder to be ESM-2's, and what transformers assumes where it is silent.
_REQUIRED: Final = {
    "model_type": ("esm", None),
    "vocab_size": (VOCABULARY_SIZE, None),
    "position_embedding_type": ("rotary", "absolute"),
    "emb_layer_norm_before": (False, None),
    "hidden_act": ("gelu", "gelu"),
    "layer_norm_eps": (1e-5, 1e-12),
    "is_decoder": (False, False),
}
_ROPE_THETA: Final = 10000.0


def hugging_face_config(file: Path, name: str) -> tuple[Esm2Config, dict[str, Any]]:
    """The sizes in a ``config.json``, and all that it says; ModelError where it is not ESM-2's."""
    settings = load_json(file)
    family = CONFIG_FAMILIES.get(str(settings.get("model_type", "")).lower())
    if settings.get("is_folding_model") or settings.get("esmfold_config"):
        family = "ESMFold"
    elif settings.get("model_type") == "esm" and settings.get("position_embedding_type", "absolute") == "absolute":
        family = ESM_1B
    if family:
        raise ModelError(f"{file}: a model of another family, {family}; {ADVICE}")
    for key, (required, silent) in _REQUIRED.items():
        value = settings.get(key, silent)
        if value != required and not (required is False and value is None):
            raise ModelError(f"{file}: {key} is {value!r}, but ESM-2 has {required!r}; {ADVICE}")
    sizes = [settings.get(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads")]
    layers, embed_dim, heads = (size if type(size) is int else 0 for size in sizes)
    return Esm2Config(name, layers, embed_dim, heads, bool(settings.get("token_dropout", False))), settings


def has_trained_frequencies(settings: dict[str, Any]) -> bool:
    """Whether a config.json leaves the rotary frequencies at those of ESM-2's training."""
    return bool(settings.get("rope_theta", _ROPE_THETA) == _ROPE_THETA)


def canonical_key(key: str) -> str | None:
    """Canonical name of one Hugging Face key without its prefix; None where it is no part of an ESM-2 encoder."""
    if key == "embeddings.word_embeddings.weight":
        return "embed_tokens.weight"
    if key in ("encoder.emb_layer_norm_after.weight", "encoder.emb_layer_norm_after.bias"):
        return key.removeprefix("encoder.")
    match = _LAYER.match(key)
    if not match or match[2] not in _NAMES:
        return None
    if match[3] in _LAYER_NORM_PARTS and not match[2].endswith("LayerNorm"):
        return None
    if match[3] == "inv_freq":
        return inv_freq_key(int(match[1]))
    return f"layers.{int(match[1])}.{_NAMES[match[2]]}.{_LAYER_NORM_PARTS.get(match[3], match[3])}"
