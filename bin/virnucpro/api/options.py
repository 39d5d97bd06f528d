"""What ``Embedder`` and ``embed`` take by name, and the values that callers hold as the types that they must be."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from operator import index
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np

from virnucpro.errors import UsageError


class OtherOptions(TypedDict, total=False):
    """The options of ``Embedder`` but for its model; it explains each."""

    model_revision: str | None
    model_cache: str | Path | None
    device: str
    token_budget: int | None
    threads: int | None
    gaps: str
    alphabet: str
    translate: str | None
    chunk: int
    genetic_code: int
    min_contig: int
    strict: bool
    deduplicate: bool
    progress: bool
    self_check: bool
    max_length: int
    long_sequences: str
    window_overlap: int | None
    layers: int | Sequence[int]
    pooling: str | Sequence[str]
    per_residue: bool
    precision: str
    embedding_dtype: str


class EmbedderOptions(OtherOptions, total=False):
    """What ``embed`` takes by name: the fields of ``Embedder``, where each is explained."""

    model: str | Path


#: What is said of a value that is none of these.
_IN_WORDS: Final = {bool: "True or False", int: "a whole number", str: "text", Path: "a path"}


def as_typed(name: str, value: object, hint: Any) -> object:
    """The value of a field as the type that its hint tells: whole numbers of NumPy are int, one layer a tuple.

    Raises:
        UsageError: it is of another kind.
    """
    kinds = getattr(hint, "__args__", (hint,))
    if value is None and type(None) in kinds:
        return None
    if getattr(hint, "__origin__", None) is not tuple:
        return _one(name, value, kinds)
    values: Iterable[object] = value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    return tuple(_one(name, each, kinds) for each in values)


def _one(name: str, value: Any, kinds: tuple[Any, ...]) -> object:
    truth = isinstance(value, bool | np.bool_)
    if bool in kinds and truth:
        return bool(value)
    if int in kinds and not truth and hasattr(value, "__index__"):
        return index(value)
    if str in kinds and isinstance(value, str):
        return value
    if Path in kinds and isinstance(value, str | os.PathLike):
        return Path(value)
    wanted = next(words for kind, words in _IN_WORDS.items() if kind in kinds)
    raise UsageError(f"{name} is {value!r}, of type {type(value).__name__}, but must be {wanted}")
