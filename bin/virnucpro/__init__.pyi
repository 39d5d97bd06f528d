from virnucpro.api.embedder import Embedder as Embedder
from virnucpro.api.embedder import embed as embed
from virnucpro.api.tables import flat_map as flat_map
from virnucpro.api.tables import nearest as nearest

__version__: str
