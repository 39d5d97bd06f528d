"""Where a model lies that was asked for by name or path."""

from __future__ import annotations

from pathlib import Path

from virnucpro.errors import UsageError
from virnucpro.model.fetch import as_given, cache_name, fetch_model, is_local


def find_model(model: str, cache: Path | None = None, revision: str | None = None) -> Path:
    """The path of a checkpoint: the one given, or that of a name, fetched into the cache at first.

    Args:
        model: official name, repository ORG/NAME of the hub, or path.
        cache: where downloaded models are kept by name; that of the pipeline unless given.
        revision: branch, tag or commit of the repository.

    Raises:
        InputMissingError: a path with nothing there.
        ModelError: an unknown name, or a model that cannot be fetched.
        UsageError: a revision of what is no repository, or no cache and no home to have one in.
    """
    if is_local(model) and revision is None:
        return as_given(Path(model))
    return fetch_model(model, (cache or _own_cache()) / cache_name(model), revision)


def _own_cache() -> Path:
    try:
        return Path.home() / ".cache" / "virnucpro" / "models"
    except RuntimeError:
        raise UsageError("this user has no home folder to keep models in; name one with --model_cache") from None
