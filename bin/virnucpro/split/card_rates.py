"""How much of a model a card computes in a second, so that a shard is minutes of it.

Rates of the H100 are those of benchmarks/results; a card's share of them is that of its dense fp16 rate in NVIDIA's
data sheets, and half of it where attention has no tensor cores (V100, T4). None but the H100's was measured.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

TABLE: Final = Path(__file__).with_name("card_rates.json")
#: Seconds of its card that a shard is to take.
SHARD_SECONDS: Final = 1200
#: What a shard holds at most on any card.
MOST_RESIDUES: Final = 400_000_000
#: Computed in fp32 whatever was asked for, at a rate that is its own.
_ONE_PRECISION: Final = ("cpu",)


def read_rates() -> dict[str, Any]:
    """H100's TFLOP/s in fp16 by a model's width; factors by precision and by card; the factor of an unknown card."""
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def find_card(name: str) -> str | None:
    """The card of the table that a driver, a scheduler or a cloud means: ``NVIDIA L40S``, ``gres=gpu:a100:1``."""
    words = f" {' '.join(re.findall('[a-z0-9]+', name.lower()))} "
    return max((card for card in read_rates()["cards"] if f" {card} " in words), key=len, default=None)


def teraflops(card: str | None, embed_dim: int, precision: str) -> float:
    """What a card of the table, or an unknown one, is taken to reach with a model of this width.

    A width that was not measured is taken for the next smaller one.
    """
    rates = read_rates()
    measured = {int(width): float(rate) for width, rate in rates["models"].items()}
    base = measured[max((width for width in measured if width <= embed_dim), default=min(measured))]
    factor = 1.0 if card in _ONE_PRECISION else float(rates["precisions"][precision])
    return base * factor * float(rates["unknown"] if card is None else rates["cards"][card])


def shards_by_time(operations: int, residues: int, rate: float) -> int:
    """Shards of about `SHARD_SECONDS` each at ``rate`` TFLOP/s, and of `MOST_RESIDUES` at most."""
    return max(-(-operations // int(rate * 1e12 * SHARD_SECONDS)), -(-residues // MOST_RESIDUES))
