"""A model's sizes before anything has opened its weights, and without PyTorch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from virnucpro.errors import VirnucproError
from virnucpro.model.checkpoint_files import locate
from virnucpro.model.hugging_face import hugging_face_config
from virnucpro.model.kept_descriptions import kept_description
from virnucpro.model.registry import MODELS, Esm2Config


def known_shape(model: str) -> Esm2Config | None:
    """The sizes by an official name, from an earlier run's description, or from ``config.json``; None without these.

    What is wrong with the model is left for DESCRIBE_MODEL to tell.
    """
    if model in MODELS:
        return MODELS[model]
    with suppress(VirnucproError, OSError):
        files = locate(Path(model))
        if described := kept_description(files):
            return Esm2Config.from_description(described)
        if files.name in MODELS:
            return MODELS[files.name]
        if files.config:
            return hugging_face_config(files.config, files.name)[0]
    return None
