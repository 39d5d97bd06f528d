"""report.py"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virnucpro.cli.program import run_program
from virnucpro.config import Config, option
from virnucpro.process import importing


@dataclass(frozen=True)
class _ReportConfig(Config):
    results: Path = option("what merge_embeddings.py made")
    outdir: Path = option("where multiqc_report.html goes")
    reference: Path | None = option("results in which neighbours were looked for, to map beside", None)
    nextflow_version: str | None = option("that the run had, to be told with the other versions", None)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw a finished results folder as one page of HTML, with MultiQC."""
    return run_program("report.py", main.__doc__, _ReportConfig, _run, argv)


def _run(config: _ReportConfig) -> None:
    with importing():
        from virnucpro.report.report import report

    report(config.results, config.outdir, config.reference, config.nextflow_version)
