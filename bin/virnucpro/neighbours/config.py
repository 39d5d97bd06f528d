"""What NEIGHBOURS is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from virnucpro.config import DEVICES, Config, option


@dataclass(frozen=True)
class NeighboursConfig(Config):
    """What NEIGHBOURS does."""

    results: Path = option("finished results")
    neighbours: int = option("how many for each record")
    outdir: Path = option("where neighbours.parquet goes", Path("."))
    reference: Path | None = option("results to look for neighbours in (default: the results themselves)", None)
    reference_name: str | None = option("what the user calls the reference", None)
    device: str = option("where to compute", "auto", choices=DEVICES)
