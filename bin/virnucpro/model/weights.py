"""Checkpoints as they lie on disk: files of fair-esm, Hugging Face and trainers, read without running their code.

All become one canonical state dict: fair-esm's key names without its ``encoder.sentence_encoder.`` prefix.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from virnucpro.errors import ModelError
from virnucpro.model.checkpoint_files import CheckpointFiles, locate
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.families import FAIR_ESM, HUGGING_FACE
from virnucpro.model.hugging_face import has_trained_frequencies, hugging_face_config
from virnucpro.model.pickles import LeftUnread, load_weights, whole_object
from virnucpro.model.registry import Esm2Config
from virnucpro.model.state_dicts import (
    EncoderWeights,
    complete_state,
    find_encoder,
    holds_encoder,
    sizes_from_tensors,
)
from virnucpro.model.strangers import ADVICE

__all__ = [
    "FAIR_ESM",
    "HUGGING_FACE",
    "Checkpoint",
    "load_model",
    "open_checkpoint",
    "open_resident",
    "read_checkpoint",
    "weight_files",
]

#: Where trainers keep the weights among other things, the first that is there.
_TABLES: Final = ("model", "state_dict", "model_state_dict")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An ESM-2 encoder as it was found.

    Args:
        config: sizes.
        state: state dict in canonical keys, mapped from the files in their own precision.
        source: the layout of its names, ``fair-esm`` or ``huggingface``.
        files: the files of weights, sorted by name.
        left_out: names of the heads on top of it, which have no part in its vectors.
        revision: the commit of its repository, where it lies in a hub cache.
    """

    config: Esm2Config
    state: dict[str, Tensor]
    source: str
    files: tuple[Path, ...]
    left_out: tuple[str, ...]
    revision: str | None


class _TakenOnce(dict[str, Tensor]):
    """A state that forgets each tensor it gives, so that nothing holds the file that it is mapped from."""

    def __getitem__(self, key: str) -> Tensor:
        return self.pop(key)


def open_checkpoint(path: Path) -> Checkpoint:
    """Read an ESM-2 checkpoint; docs/usage.md lists the forms.

    Weights are mapped into memory, in the precision of the file, and read when used. Heads on top of the encoder
    are left out and named; any other key that is missing or surplus is an error. Code in a pickle is never run.

    Raises:
        InputMissingError: nothing there, or not readable.
        ModelError: not an ESM-2 checkpoint, damaged, or nothing that can be read without running code.
    """
    path = Path(path)
    files = locate(path)
    contents = [load_weights(file) for file in files.weights]
    tables = [_table(path, content) for content in contents]
    encoder = find_encoder(path, (pair for table in tables for pair in table.items()))
    config, trained = _sizes(path, files, contents[0], encoder)
    state = complete_state(path, config, encoder, trained_frequencies=trained)
    return Checkpoint(config, state, encoder.source, files.weights, encoder.left_out, files.revision)


def read_checkpoint(path: Path) -> tuple[Esm2Config, dict[str, Tensor], str]:
    """Sizes, state dict and source of a checkpoint; as ``open_checkpoint``, with its errors."""
    checkpoint = open_checkpoint(path)
    return checkpoint.config, checkpoint.state, checkpoint.source


def open_resident(path: Path, device: torch.device) -> Path | Checkpoint:
    """What several models of a checkpoint are to be made of: its weights, copied to a GPU once.

    The path comes back where there is no GPU, or where they would take more than a quarter of its free memory.

    Raises:
        InputMissingError, ModelError: as ``open_checkpoint``.
    """
    if device.type != "cuda":
        return path
    checkpoint = open_checkpoint(path)
    free, _ = torch.cuda.mem_get_info(device)
    if sum(tensor.nbytes for tensor in checkpoint.state.values()) > free / 4:
        return path
    return replace(checkpoint, state={name: tensor.to(device) for name, tensor in checkpoint.state.items()})


def load_model(
    source: Path | Checkpoint, precision: str, device: torch.device | str, *, plain: bool = False
) -> PackedEsm2:
    """The model of a checkpoint, ready to run; a ``plain`` one by PyTorch's own operations alone.

    Errors are those of ``open_checkpoint`` and ``from_state``.

    Of a path there are never two copies on the host: a file is let go once its last tensor is where it is to run.
    """
    if isinstance(source, Checkpoint):
        return PackedEsm2.from_state(source.config, source.state, precision, device, plain=plain)
    checkpoint = open_checkpoint(source)
    config, state = checkpoint.config, _TakenOnce(checkpoint.state)
    del checkpoint
    return PackedEsm2.from_state(config, state, precision, device, plain=plain)


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights of a checkpoint, sorted by name; errors as for ``open_checkpoint``."""
    return list(locate(Path(path)).weights)


def _table(path: Path, content: object) -> Mapping[str, object]:
    """The named weights in what a file holds: itself, or what fair-esm or a trainer keeps in it."""
    values = content.values() if isinstance(content, Mapping) else content if isinstance(content, list | tuple) else ()
    objects = [type(value).stands_for for value in values if isinstance(value, LeftUnread)]
    if not isinstance(content, Mapping):
        if objects:
            raise _no_tensors(path, objects)
        raise ModelError(f"{path}: holds a {type(content).__name__}, not a table of weights; {ADVICE}")
    tables = _tables(content)
    encoders = [name for name, table in tables.items() if holds_encoder(table)]
    if not encoders and not holds_encoder(content):
        tables |= _nested_tables(tables)
        encoders = [name for name, table in tables.items() if holds_encoder(table)]
    if len(encoders) == 1:
        return tables[encoders[0]]
    if encoders:
        raise ModelError(f"{path}: holds several models, {', '.join(encoders)}; save the state_dict() of one alone")
    if any(isinstance(value, Tensor) for value in content.values()):
        return content
    # No encoder in any: what the weights are is told from the likeliest table.
    likeliest = next((tables[name] for name in _TABLES if name in tables), None)
    if likeliest is None and objects:
        raise _no_tensors(path, objects)
    return content if likeliest is None else likeliest


def _no_tensors(path: Path, objects: list[str]) -> ModelError:
    """The error for a list or table of objects of these classes, and no weights."""
    others = [name for name in objects if not name.startswith("numpy.")]
    if others:
        return whole_object(path, others[0])
    remedy = (
        "save tensors: torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, 'weights.pt')"
    )
    return ModelError(f"{path}: holds NumPy's arrays, which are not read; where it was made, {remedy}")


def _tables(content: Mapping[Any, object]) -> dict[str, Mapping[str, object]]:
    return {str(name): value for name, value in content.items() if isinstance(value, Mapping) and value}


def _nested_tables(tables: Mapping[str, Mapping[str, object]]) -> dict[str, Mapping[str, object]]:
    """Tables inside these, at any depth, by their names with dots between them."""
    found = {f"{outer}.{name}": each for outer, table in tables.items() for name, each in _tables(table).items()}
    return found | _nested_tables(found) if found else {}


def _sizes(path: Path, files: CheckpointFiles, content: object, encoder: EncoderWeights) -> tuple[Esm2Config, bool]:
    """Sizes from the checkpoint's own settings, else from its tensors; and whether its frequencies are the trained."""
    if encoder.source == HUGGING_FACE and files.config is not None:
        config, settings = hugging_face_config(files.config, files.name)
        return config, has_trained_frequencies(config, settings)
    settings = _settings(content)
    sizes = [settings.get(key) for key in ("layers", "embed_dim", "attention_heads")]
    layers, embed_dim, heads = (size if type(size) is int else None for size in sizes)
    if encoder.source == HUGGING_FACE or layers is None or embed_dim is None or heads is None:
        return sizes_from_tensors(path, files.name, encoder), True
    dropout = bool(settings.get("token_dropout", True))
    return Esm2Config(files.name, layers, embed_dim, heads, dropout, encoder.family), True


def _settings(content: object) -> dict[str, Any]:
    """``cfg.model`` of ESM-2's own files, or ``args`` of the older layout."""
    if not isinstance(content, Mapping):
        return {}
    settings = _as_dict(_as_dict(content.get("cfg")).get("model")) or _as_dict(content.get("args"))
    return {key.removeprefix("encoder_"): value for key, value in settings.items()}


def _as_dict(value: object) -> dict[str, Any]:
    return dict(vars(value) if isinstance(value, argparse.Namespace) else value if isinstance(value, Mapping) else {})
