"""What leaves the model of each sequence, told once for engine, budget, writer and self-check."""

from __future__ import annotations

from dataclasses import dataclass

from virnucpro.config import DEFAULT_VECTORS, VectorConfig, Windows, absolute_layers
from virnucpro.output.schema import embedding_columns, residue_columns


@dataclass(frozen=True)
class OutputPlan:
    """Which vectors leave the model: absolute ``layers`` (0 is the embedding layer) times ``pooling``.

    Sequences longer than ``windows`` are computed in these.
    """

    layers: tuple[int, ...]
    pooling: tuple[str, ...]
    per_residue: bool = False
    windows: Windows | None = None

    @classmethod
    def of(cls, depth: int, asked: VectorConfig = DEFAULT_VECTORS) -> OutputPlan:
        """What is asked of a model of ``depth`` layers; UsageError where it does not have them."""
        return cls(absolute_layers(asked.layers, depth), asked.pooling, asked.per_residue, asked.windows)

    def columns(self) -> dict[str, tuple[str, int]]:
        """Column name to (pooling, layer), in output order."""
        outputs = [(pooling, layer) for pooling in self.pooling for layer in self.layers]
        return dict(zip(embedding_columns(self.pooling, self.layers), outputs, strict=True))

    def residue_columns(self) -> dict[str, int]:
        """Column name to layer of the per-residue vectors; empty where none were asked for."""
        return dict(zip(residue_columns(self.layers), self.layers, strict=True)) if self.per_residue else {}
