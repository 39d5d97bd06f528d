"""The program that the pipeline's task runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from descriptions import describe

PROJECT = Path(__file__).parents[2]


def split(folder: Path, *arguments: str | Path, code: int = 0) -> str:
    """Run split_fasta.py into ``folder``/split; returns what it printed."""
    describe().write(folder / "model.json")
    command = [sys.executable, PROJECT / "bin" / "split_fasta.py", "--model-json", folder / "model.json"]
    done = subprocess.run(
        [*map(str, command), "--outdir", str(folder / "split"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def ledger(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "split" / "manifest.parquet").to_pylist()
