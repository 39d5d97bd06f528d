"""The page of a made-up run, drawn by MultiQC."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_results import Run

ROOT = Path(__file__).resolve().parents[2]
REALISTIC = Run(
    records=20_000, dim=64, shards=5, tokens_per_batch=65_536, tokens_per_second=340_000, rows_per_group=4096
)

needs_multiqc = pytest.mark.skipif(
    shutil.which("multiqc", path=str(Path(sys.executable).parent)) is None, reason="MultiQC is not installed"
)


def run_report(results: Path, outdir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bin" / "report.py"), "--results", str(results), "--outdir", str(outdir)]
    command += words
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
