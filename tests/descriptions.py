"""Descriptions of models that no checkpoint stands behind."""

from __future__ import annotations

from typing import Any

from virnucpro.output.contracts import ModelDescription


def describe(**changes: Any) -> ModelDescription:
    """A small model's description, with other values where they are given."""
    facts: dict[str, Any] = {"name": "tiny", "source": "fair-esm", "layers": 6, "embed_dim": 3, "heads": 1}
    facts |= {"revision": None, "weights_sha256": "ab" * 32, "parameters": 9, "left_out": [], "files": ["tiny.pt"]}
    return ModelDescription(**{**facts, **changes})
