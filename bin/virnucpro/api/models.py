"""Where a model lies that was asked for by name or path."""

from __future__ import annotations

from pathlib import Path

from virnucpro.model.fetch import as_given, fetch_model, is_local


def find_model(model: str, cache: Path | None = None) -> Path:
    """The path of a checkpoint: the one given, or that of an official name, fetched into the cache at first.

    Args:
        model: official name or path.
        cache: where downloaded models are kept by name; that of the pipeline unless given.

    Raises:
        InputMissingError: a path with nothing there.
        ModelError: an unknown name, or a model that cannot be fetched.
    """
    if is_local(model):
        return as_given(Path(model))
    return fetch_model(model, (cache or Path.home() / ".cache" / "virnucpro" / "models") / model)
