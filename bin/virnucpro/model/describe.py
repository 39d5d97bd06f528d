"""What a checkpoint is, for the record: the content of ``model.json``."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from virnucpro.errors import InputMissingError, ModelError
from virnucpro.file_identity import identity_of
from virnucpro.model.registry import MODELS, Esm2Config
from virnucpro.model.weights import open_checkpoint
from virnucpro.output.contracts import ModelDescription

_ROTARY_SUFFIX: Final = ".inv_freq"
#: SHA-256 of what this process has downloaded, by what tells that a file was not changed since.
_arrived: Final[dict[tuple[int, ...], str]] = {}


def describe_model(path: Path) -> ModelDescription:
    """Describe a checkpoint after checking that it is a whole ESM-2.

    ``parameters`` counts the trained numbers of the encoder, without the heads on top that are ``left_out``.

    Raises:
        InputMissingError, ModelError: as ``open_checkpoint``, or an official name on another model.
    """
    checkpoint = open_checkpoint(path)
    config, files = checkpoint.config, list(checkpoint.files)
    _require_official(path, config)
    return ModelDescription(
        name=config.name,
        revision=checkpoint.revision,
        source=checkpoint.source,
        family=config.family.name,
        layers=config.layers,
        embed_dim=config.embed_dim,
        heads=config.heads,
        weights_sha256=weights_sha256(files),
        parameters=sum(value.numel() for key, value in checkpoint.state.items() if not key.endswith(_ROTARY_SUFFIX)),
        left_out=list(checkpoint.left_out),
        files=[file.name for file in files],
    )


def _require_official(path: Path, config: Esm2Config) -> None:
    """Results carry the model's name, so an official one must not stand for another family or other sizes."""
    official = MODELS.get(config.name, config)
    if config.family.name != official.family.name:
        raise ModelError(
            f"{path}: an {config.family.name}, but the official {config.name} is an {official.family.name}; "
            "give it a name of its own"
        )
    found, expected = ((each.layers, each.embed_dim, each.heads) for each in (config, official))
    if found != expected:
        raise ModelError(
            f"{path}: layers, width and heads are {found}, but the official {config.name} has {expected}; "
            "give it a name of its own"
        )


def weights_sha256(files: list[Path]) -> str:
    """SHA-256 of the weight file; of several, that of the lines ``sha256  name``, sorted by name."""
    digests = {file.name: _file_sha256(file) for file in files}
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def arrived_whole(file: Path, expected: str) -> bool:
    """Whether a file that was downloaded has this SHA-256; one that has is not read again for its description."""
    found = _file_sha256(file)
    if found == expected:
        _arrived[identity_of(file.stat())] = found
    return found == expected


def _file_sha256(file: Path) -> str:
    """SHA-256 of a file in hex; InputMissingError where it cannot be read."""
    try:
        with file.open("rb") as stream:
            known = _arrived.get(identity_of(os.fstat(stream.fileno())))
            return known or hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputMissingError(f"{file}: {error.strerror}; check the path of the model") from error
