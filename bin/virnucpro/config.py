"""Every default and range, once: the command lines, the Nextflow schema and the docs are checked against these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from virnucpro.errors import UsageError

PRECISIONS: Final = ("fp16", "bf16", "fp32", "fp8")
POOLINGS: Final = ("mean", "bos", "max")
EMBEDDING_DTYPES: Final = ("float32", "float16")
LONG_SEQUENCES: Final = ("truncate", "full")
ALPHABETS: Final = ("auto", "protein")
GAPS: Final = ("remove", "unknown", "reject")
DEVICES: Final = ("auto", "cuda", "cpu")

#: Residues per sequence: ESM-2 was trained on crops of 1,024 tokens, two of which are <cls> and <eos>.
DEFAULT_MAX_LENGTH: Final = 1022
#: Residues per shard: 10 to 30 minutes of one H100 at the 650M model's 3.4e5 tokens per second.
DEFAULT_SHARD_RESIDUES: Final = 400_000_000
#: Tokens per batch on a CPU, where larger batches only leave the caches.
CPU_TOKEN_BUDGET: Final = 4096
#: Tokens per batch above which no GPU measured gains any more throughput.
MAX_TOKEN_BUDGET: Final = 1 << 17


def absolute_layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """The layers asked for as numbers from 0 (the embedding layer) to ``depth``, each once, in the order asked.

    Negative ones count from the end of a model of ``depth`` layers.

    Raises:
        UsageError: none is asked for, or one that the model does not have.
    """
    _check_any("layers", layers)
    absolute = [layer + depth + 1 if layer < 0 else layer for layer in layers]
    for asked, layer in zip(layers, absolute, strict=True):
        if not 0 <= layer <= depth:
            raise UsageError(f"--layers holds {asked}, but the model has layers 0 to {depth}")
    return tuple(dict.fromkeys(absolute))


def distinct_poolings(pooling: Sequence[str]) -> tuple[str, ...]:
    """The poolings asked for, each once, in the order asked.

    Raises:
        UsageError: none is asked for, or one that there is not.
    """
    _check_any("pooling", pooling)
    for name in pooling:
        _check_choice("pooling", name, POOLINGS)
    return tuple(dict.fromkeys(pooling))


@dataclass(frozen=True, kw_only=True)
class VectorConfig:
    """What decides what a vector is. ``layers`` is what was asked for: ``absolute_layers`` numbers it for a model."""

    max_length: int = DEFAULT_MAX_LENGTH
    long_sequences: str = "truncate"
    layers: tuple[int, ...] = (-1,)
    pooling: tuple[str, ...] = ("mean",)
    per_residue: bool = False
    precision: str = "fp16"
    embedding_dtype: str = "float32"

    def __post_init__(self) -> None:
        _check_positive("max_length", self.max_length)
        _check_choice("long_sequences", self.long_sequences, LONG_SEQUENCES)
        _check_any("layers", self.layers)
        object.__setattr__(self, "pooling", distinct_poolings(self.pooling))
        _check_choice("precision", self.precision, PRECISIONS)
        _check_choice("embedding_dtype", self.embedding_dtype, EMBEDDING_DTYPES)

    @property
    def residue_limit(self) -> int | None:
        """Residues after which a sequence is cut, or None where it is embedded whole."""
        return self.max_length if self.long_sequences == "truncate" else None


@dataclass(frozen=True)
class SplitConfig(VectorConfig):
    """What SPLIT_FASTA does. ``shards_at_least`` is the number of GPUs that wait for work; ``names`` and
    ``reuse_names`` are the inputs and the earlier results as the user named them, where they lie elsewhere now;
    ``alphabet`` protein takes what looks like nucleotides too."""

    inputs: tuple[Path, ...]
    outdir: Path
    model_json: Path
    shard_residues: int = DEFAULT_SHARD_RESIDUES
    shards_at_least: int = 1
    deduplicate: bool = True
    reuse: tuple[Path, ...] = ()
    strict: bool = False
    gaps: str = "remove"
    names: tuple[str, ...] = ()
    reuse_names: tuple[str, ...] = ()
    alphabet: str = "auto"

    def __post_init__(self) -> None:
        if not self.inputs:
            raise UsageError("no input file given; name at least one FASTA file, or - for standard input")
        _check_names(self.names, len(self.inputs), "input files")
        _check_names(self.reuse_names, len(self.reuse), "results to reuse")
        super().__post_init__()
        _check_choice("gaps", self.gaps, GAPS)
        _check_positive("shard_residues", self.shard_residues)
        _check_choice("alphabet", self.alphabet, ALPHABETS)
        _check_positive("shards_at_least", self.shards_at_least)


@dataclass(frozen=True)
class EmbedConfig(VectorConfig):
    """What EMBED_SHARD does."""

    shard: Path
    model: Path
    model_json: Path
    outdir: Path
    device: str = "auto"
    token_budget: int | None = None
    attempt: int = 1
    workers: int = 2
    prefetch: int = 4
    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("device", self.device, DEVICES)
        for name in ("attempt", "workers", "prefetch"):
            _check_positive(name, getattr(self, name))
        if self.token_budget is not None:
            _check_positive("token_budget", self.token_budget)


@dataclass(frozen=True)
class MergeConfig:
    """What MERGE_EMBEDDINGS does: ``shard_dirs`` hold what the EMBED_SHARD tasks left, in any order."""

    manifest: Path
    split_summary: Path
    model_json: Path
    shard_dirs: tuple[Path, ...]
    outdir: Path
    reuse: tuple[Path, ...] = ()
    embedding_dtype: str = "float32"
    row_group_rows: int = 16_384
    part_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        _check_choice("embedding_dtype", self.embedding_dtype, EMBEDDING_DTYPES)
        _check_positive("row_group_rows", self.row_group_rows)
        _check_positive("part_bytes", self.part_bytes)


@dataclass(frozen=True)
class ReportConfig:
    """What REPORT does: ``results`` is the folder that MERGE_EMBEDDINGS made."""

    results: Path
    outdir: Path


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"--{name} is {value}, but must be at least 1")


def _check_any(name: str, values: Sequence[object]) -> None:
    if not values:
        raise UsageError(f"--{name} is empty; name at least one")


def _check_names(names: tuple[str, ...], things: int, what: str) -> None:
    if names and len(names) != things:
        raise UsageError(f"{len(names)} names for {things} {what}; give one for each")


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"--{name} is '{value}', but must be one of {', '.join(allowed)}")
