from virnucpro.api.embedder import Embedder as Embedder
from virnucpro.api.embedder import embed as embed

__version__: str
