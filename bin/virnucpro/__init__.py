"""ESM-2 protein embeddings at the speed of the GPU, with nothing lost."""

import importlib

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """``embed`` and ``Embedder``, loaded when they are asked for: all programs import this module, few need torch.

    Named by text and not by an import statement, since a task runs again when what it imports was edited.
    """
    if name in ("Embedder", "embed"):
        return getattr(importlib.import_module("virnucpro.api.embedder"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
