"""merge_embeddings.py"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from virnucpro.cli.program import run_program
from virnucpro.merge.config import MergeConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Merge the shards into one result in input order, joined with the metrics, and prove that nothing is missing."""
    return run_program("merge_embeddings.py", main.__doc__, MergeConfig, _run, argv)


def _run(config: MergeConfig) -> None:
    from virnucpro.merge.merge import merge
    from virnucpro.path_lists import named_paths, shard_folders

    shard_dirs = (*config.shard_dirs, *shard_folders(config.shards_in))
    reuse = named_paths(config.reuse, config.reuse_from).paths
    given = replace(config, shard_dirs=shard_dirs, shards_in=None, reuse=reuse, reuse_from=None)
    print(*merge(given).verdict, sep="\n")
