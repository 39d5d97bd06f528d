"""EMBED_SHARD. The inference engine is imported on first use: what only reads its settings runs without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from virnucpro.pipeline.async_inference import AsyncInferenceRunner, InferenceResult

__all__ = ["AsyncInferenceRunner", "InferenceResult"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from virnucpro.pipeline import async_inference

        return getattr(async_inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
