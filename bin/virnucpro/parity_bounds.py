"""How far vectors may be from fair-esm's in fp32, by precision."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class ParityBound(NamedTuple):
    """How far vectors may be from fair-esm's in fp32, as docs/parity.md publishes it; None where nothing is said."""

    pooled_cosine: float
    residue_l2: float | None


PARITY_BOUNDS: Final[Mapping[str, ParityBound]] = MappingProxyType(
    {
        "fp32": ParityBound(0.9999999, 2e-5),
        "fp16": ParityBound(0.99999, 5e-3),
        "bf16": ParityBound(0.9998, 4e-2),
        "fp8": ParityBound(0.999, None),
    }
)
#: What no rounding to this precision explains. fp8 misses its published bound with every model, the others with some.
ROUNDING_BOUNDS: Final[Mapping[str, ParityBound]] = MappingProxyType(
    {
        "fp32": ParityBound(0.999999, 2e-4),
        "fp16": ParityBound(0.999, 5e-2),
        "bf16": ParityBound(0.99, 4e-1),
        "fp8": ParityBound(0.85, 0.6),
    }
)
