"""Hugging Face's form of an ESM-2: what config.json must say, and how the sizes are told there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from virnucpro.errors import ModelError
from virnucpro.model.checkpoint_files import load_json
from virnucpro.model.families import FAMILIES
from virnucpro.model.registry import Esm2Config
from virnucpro.model.strangers import ADVICE, CONFIG_FAMILIES

#: One set of frequencies for all layers; transformers 5 writes the second name, asterisk and all.
SHARED_INV_FREQ: Final = (
    "rotary_embeddings.inv_freq",
    "encoder.layer.*.attention.self.rotary_embeddings.inv_freq",
)
#: transformers' own class; of any other class it is not known what it assumes where its settings are silent.
_OWN_CLASS: Final = "esm"
_NEVER_SILENT: Final = ("position_embedding_type", "token_dropout")


def hugging_face_config(file: Path, name: str, where: str | None = None) -> tuple[Esm2Config, dict[str, Any]]:
    """The sizes in a ``config.json``, and all that it says.

    The class that it names may be any: a laboratory's own that holds the same encoder is read by its tensors.

    Args:
        file: the ``config.json``.
        name: what the model is called.
        where: what messages call the model; the file unless given.

    Raises:
        ModelError: the settings are not those of an encoder that runs here.
    """
    settings = load_json(file)
    where = where or str(file)
    kind = settings.get("model_type")
    if stranger := _stranger(settings):
        raise ModelError(f"{where}: a model of another family, {stranger}; {ADVICE}")
    family = min(FAMILIES, key=lambda each: len(each.differences(settings)))
    if differences := family.differences(settings):
        other = "" if kind in (None, _OWN_CLASS) else f"a model of another family, {kind}: "
        raise ModelError(f"{where}: {other}{differences[0]}; {ADVICE}")
    silent = [key for key in _NEVER_SILENT if key not in settings]
    if kind != _OWN_CLASS and silent:
        raise ModelError(f"{where}: of the class {kind}, and config.json does not say {silent[0]}; add it there")
    sizes = [settings.get(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads")]
    layers, embed_dim, heads = (size if type(size) is int else 0 for size in sizes)
    return Esm2Config(name, layers, embed_dim, heads, bool(settings.get("token_dropout", False)), family), settings


def _stranger(settings: dict[str, Any]) -> str | None:
    family = CONFIG_FAMILIES.get(str(settings.get("model_type", "")).lower())
    if settings.get("is_folding_model") or settings.get("esmfold_config"):
        family = "ESMFold"
    return family


def has_trained_frequencies(config: Esm2Config, settings: dict[str, Any]) -> bool:
    """Whether a config.json leaves the rotary frequencies at those that its family was trained with."""
    return bool(settings.get("rope_theta", config.family.rotary_base) == config.family.rotary_base)
