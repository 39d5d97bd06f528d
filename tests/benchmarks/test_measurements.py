"""Measurements that need no GPU, run small: each is a command of the docs, and makes records of the pipeline's own."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
needs_seqkit = pytest.mark.skipif(not shutil.which("seqkit"), reason="needs seqkit on the PATH")


@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("bench_merge --rows 3000 --dim 8 --shards 3 --folder {}/work", "merge.csv"),
        ("bench_dedup --records 3000 --repeats 1 --folder {} --out {}/dedup.csv", "dedup.csv"),
        ("bench_neighbours --rows 3000 --dim 16 --itself --folder {}/work --output {}/n.csv", "n.csv"),
        pytest.param("bench_split --records 3000 --shards 2 --repeats 1 --scratch {}", "split.csv", marks=needs_seqkit),
    ],
    ids=lambda value: value.split()[0],
)
def test_a_measurement_runs(command: str, result: str, tmp_path: Path) -> None:
    name, *options = command.replace("{}", str(tmp_path)).split()
    run = subprocess.run(
        [sys.executable, "-m", f"benchmarks.measurements.{name}", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "bin", "VIRNUCPRO_RESULTS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    with (tmp_path / result).open(newline="") as rows:
        assert list(csv.DictReader(rows))
