"""export.py"""

from __future__ import annotations

from collections.abc import Sequence

from virnucpro.cli.program import run_program
from virnucpro.export.config import ExportConfig
from virnucpro.plain_text import visible
from virnucpro.process import allow_pandas, importing


def main(argv: Sequence[str] | None = None) -> int:
    """Write a finished results folder in the layout of another tool."""
    return run_program("export.py", main.__doc__, ExportConfig, _run, argv)


def _run(config: ExportConfig) -> None:
    # AnnData is made of it.
    allow_pandas()
    with importing():
        from virnucpro.export.export import export

    print(*map(visible, export(config)), sep="\n")
