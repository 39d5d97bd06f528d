"""split_fasta.py"""

from __future__ import annotations

import os
from collections.abc import Sequence

from virnucpro.cli.program import run_program
from virnucpro.config import SplitConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Split FASTA into shards of equal cost, with a ledger that has one row for every record."""
    return run_program("split_fasta.py", main.__doc__, SplitConfig, _run, argv)


def _run(config: SplitConfig) -> None:
    # The threads that numpy starts for matrix products, of which a split has none, would spin before they sleep.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Arrow's memory comes from malloc, which keeps what is freed (``split.workers``).
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from virnucpro.path_lists import with_files
    from virnucpro.split.split import split

    split(with_files(config))
