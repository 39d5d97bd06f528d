"""virnucpro embed"""

from __future__ import annotations

from collections.abc import Sequence

from virnucpro.api.config import RunConfig
from virnucpro.cli.program import run_program
from virnucpro.plain_text import visible
from virnucpro.process import importing


def main(argv: Sequence[str] | None = None) -> int:
    """Embed protein FASTA with ESM-2 on this machine: the pipeline's results without Nextflow."""
    return run_program("virnucpro embed", main.__doc__, RunConfig, _run, argv)


def _run(config: RunConfig) -> None:
    with importing():
        from virnucpro.api.local_run import run

    print(*map(visible, [*run(config).verdict, f"Results: {config.outdir}"]), sep="\n")
