"""merge_embeddings.py"""

from __future__ import annotations

from collections.abc import Sequence

from virnucpro.cli.program import run_program
from virnucpro.merge.config import MergeConfig
from virnucpro.plain_text import visible
from virnucpro.process import importing


def main(argv: Sequence[str] | None = None) -> int:
    """Merge the shards into one result in input order, joined with the metrics, and prove that nothing is missing."""
    return run_program("merge_embeddings.py", main.__doc__, MergeConfig, _run, argv)


def _run(config: MergeConfig) -> None:
    with importing():
        from virnucpro.merge.merge import merge

    print(*map(visible, merge(config).verdict), sep="\n")
