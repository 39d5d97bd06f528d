"""Which form of the layers runs where kernels for both exist, on Hopper: by width and precision, from measurements.

``benchmarks/measurements/bench_paths.py`` measures both forms; tests/benchmarks/test_paths.py holds the table to its
newest results.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from virnucpro.model.registry import Esm2Config

#: The faster form by width (embed_dim) and precision: of 8M, 35M, 150M, 650M, 3B and 15B.
FASTER: Final[Mapping[int, Mapping[str, str]]] = MappingProxyType(
    {
        320: {"fp16": "plain", "bf16": "plain", "fp8": "fused"},
        480: {"fp16": "fused", "bf16": "fused", "fp8": "fused"},
        640: {"fp16": "plain", "bf16": "plain", "fp8": "fused"},
        1280: {"fp16": "fused", "bf16": "fused", "fp8": "fused"},
        2560: {"fp16": "fused", "bf16": "fused", "fp8": "fused"},
        5120: {"fp16": "plain", "bf16": "plain", "fp8": "fused"},
    }
)
#: Up to this width the fused form runs though the plain one is faster: it alone carries the bits that rounding takes,
#: without which so small a model misses its bounds (docs/parity.md).
FUSED_FOR_ACCURACY: Final = 320


def prefers_fused(config: Esm2Config, precision: str) -> bool:
    """True where the fused form is to run; a width that was not measured is taken for the next measured one."""
    if config.embed_dim <= FUSED_FOR_ACCURACY:
        return True
    width = next((width for width in sorted(FASTER) if config.embed_dim <= width), max(FASTER))
    return FASTER[width].get(precision) == "fused"
