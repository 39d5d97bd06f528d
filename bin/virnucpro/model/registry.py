"""The official ESM-2 models: exact names, sizes and where the hub keeps them. The only owner of model names."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from virnucpro.errors import DataError, ModelError
from virnucpro.model.families import ESM_1B, ESM_1V, ESM_2, FAMILIES, Family
from virnucpro.output.contracts import ModelDescription

#: Whose repositories on the hub the official models are.
HUB_OWNER: Final = "facebook/"
#: More than any model has; each layer that a config.json claims costs time and memory before a file is looked at.
MOST_LAYERS: Final = 1000
#: The same of a layer's width.
MOST_WIDTH: Final = 1 << 17


@dataclass(frozen=True, slots=True)
class Esm2Config:
    """Sizes of one ESM-2 encoder.

    Args:
        name: registry name, or the name of the file or folder that the model was read from.
        layers: transformer layers.
        embed_dim: width of the residual stream.
        heads: attention heads; must divide ``embed_dim`` into even head dimensions.
        token_dropout: whether embeddings are rescaled for the share of masked tokens seen in training
            (true of every official ESM-2).
        family: what tensors the encoder has, and how it tells positions.

    Raises:
        ModelError: the sizes do not make an ESM-2.
    """

    name: str
    layers: int
    embed_dim: int
    heads: int
    token_dropout: bool = True
    family: Family = ESM_2

    def __post_init__(self) -> None:
        sizes = (self.layers, self.embed_dim, self.heads)
        too_large = self.layers > MOST_LAYERS or self.embed_dim > MOST_WIDTH
        if min(sizes) < 1 or too_large or self.embed_dim % (2 * self.heads):
            raise ModelError(
                f"model {self.name}: {self.layers} layers of width {self.embed_dim} with {self.heads} heads "
                "is not an ESM-2; check that the checkpoint is complete"
            )

    @classmethod
    def from_description(cls, described: ModelDescription) -> Esm2Config:
        """The sizes and the family in a ``model.json``.

        Raises:
            DataError: it tells a family that is none of those that run here.
        """
        family = next((each for each in FAMILIES if each.name == described.family), None)
        if family is None:
            known = ", ".join(each.name for each in FAMILIES)
            raise DataError(
                f"model {described.name}: its description says family '{described.family}', but must say one of "
                f"{known}; describe the model again with fetch_model.py"
            )
        return cls(described.name, described.layers, described.embed_dim, described.heads, family=family)

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.heads

    @property
    def ffn_dim(self) -> int:
        return 4 * self.embed_dim

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical names of a whole checkpoint with the shape of each tensor."""
        return self.family.shapes(self.layers, {"D": self.embed_dim, "F": self.ffn_dim, "H": self.head_dim // 2})


def _official(name: str, layers: int, embed_dim: int, heads: int, family: Family = ESM_2) -> tuple[str, Esm2Config]:
    return name, Esm2Config(name, layers, embed_dim, heads, family=family)


MODELS: Final = MappingProxyType(
    dict(
        (
            _official("esm2_t6_8M_UR50D", 6, 320, 20),
            _official("esm2_t12_35M_UR50D", 12, 480, 20),
            _official("esm2_t30_150M_UR50D", 30, 640, 20),
            _official("esm2_t33_650M_UR50D", 33, 1280, 20),
            _official("esm2_t36_3B_UR50D", 36, 2560, 40),
            _official("esm2_t48_15B_UR50D", 48, 5120, 40),
            _official("esm1b_t33_650M_UR50S", 33, 1280, 20, ESM_1B),
            *(_official(f"esm1v_t33_650M_UR90S_{member}", 33, 1280, 20, ESM_1V) for member in range(1, 6)),
        )
    )
)


def look_up(name: str) -> Esm2Config:
    """The registered model of exactly this name.

    Raises:
        ModelError: no such name; the message offers the nearest one.
    """
    config = MODELS.get(name)
    if config is None:
        nearest = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(MODELS)}"
        raise ModelError(f"unknown model '{name}', and no such file or folder; {hint}")
    return config


def hub_repository(name: str) -> str:
    """Repository id of a registered model on the Hugging Face hub."""
    return f"{HUB_OWNER}{look_up(name).name}"
