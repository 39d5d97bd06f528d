"""ESM-2 protein embeddings at the speed of the GPU, with nothing lost."""

import importlib

__version__ = "0.1.0"

#: What this package offers to Python -> its module.
_HOMES = {
    "Embedder": "virnucpro.api.embedder",
    "embed": "virnucpro.api.embedder",
    "flat_map": "virnucpro.api.tables",
    "nearest": "virnucpro.api.tables",
}


def __getattr__(name: str) -> object:
    """What ``_HOMES`` lists, loaded when it is asked for: all programs import this module, few need torch.

    Named by text and not by an import statement, since a task runs again when what it imports was edited.
    """
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
