"""Descriptions of models that no checkpoint stands behind, for measurements of what never opens one."""

from __future__ import annotations

from virnucpro.output.contracts import ModelDescription


def random_model(*, layers: int, embed_dim: int, heads: int) -> ModelDescription:
    """A model of these sizes."""
    return ModelDescription(
        name="random",
        source="fair-esm",
        revision=None,
        weights_sha256="0" * 64,
        layers=layers,
        embed_dim=embed_dim,
        heads=heads,
        parameters=0,
        files=["random.pt"],
        left_out=[],
    )
