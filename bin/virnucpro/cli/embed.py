"""embed_shard.py"""

from __future__ import annotations

from collections.abc import Sequence

from virnucpro.cli.program import run_program
from virnucpro.config import EmbedConfig
from virnucpro.cuda_start import start_cuda
from virnucpro.process import importing


def main(argv: Sequence[str] | None = None) -> int:
    """Embed one shard with ESM-2 on one GPU, or on the CPU."""
    return run_program("embed_shard.py", main.__doc__, EmbedConfig, _run, argv)


def _run(config: EmbedConfig) -> None:
    start_cuda(config.device)
    with importing():
        from virnucpro.pipeline.embed import embed_shard, tell_verdict

    tell_verdict(embed_shard(config))
