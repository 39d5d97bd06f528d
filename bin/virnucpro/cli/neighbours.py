"""neighbours.py"""

from __future__ import annotations

from collections.abc import Sequence

from virnucpro.cli.program import run_program
from virnucpro.neighbours.config import NeighboursConfig
from virnucpro.process import importing


def main(argv: Sequence[str] | None = None) -> int:
    """Find the exact nearest neighbours of every record of finished results, by cosine."""
    return run_program("neighbours.py", main.__doc__, NeighboursConfig, _run, argv)


def _run(config: NeighboursConfig) -> None:
    with importing():
        from virnucpro.neighbours.neighbours import neighbours

    neighbours(config)
