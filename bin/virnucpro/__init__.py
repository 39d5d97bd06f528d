"""ESM-2 protein embeddings at the speed of the GPU, with nothing lost."""

__version__ = "0.1.0"
