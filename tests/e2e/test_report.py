"""The report at the end of a real run, and runs that do without."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launch import MODEL, PROJECT, nextflow_command


def run_pipeline(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ten of the demo's proteins on the CPU, in ``folder``."""
    records = (PROJECT / "assets" / "proteins.fasta").read_text().split(">")[1:11]
    fasta = folder / "few.fasta"
    fasta.write_text("".join(f">{record}" for record in records))
    command = [*nextflow_command(), "run", str(PROJECT), "-ansi-log", "false", "--input", str(fasta), "--gpus", "0"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment}
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
    (engine,) = re.findall(r"<td>Nextflow</td><td><samp>([\d.]+)</samp>", page)
    assert f"version {engine}\n" in finished.stdout
    verdict = json.loads((tmp_path / "results" / "metrics" / "run_summary.json").read_text())["verdict"]
    assert "Where the time went" in verdict[1]
    printed = finished.stdout + finished.stderr
    assert all(line in printed for line in verdict)
    assert f"Report: {tmp_path}/results/report/multiqc_report.html" in printed


def test_a_run_says_what_it_will_do_before_it_does_it_and_tags_carry_sizes(tmp_path: Path) -> None:
    finished = run_pipeline(tmp_path, "--shard_residues", "1500", "--report", "false")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    summary = json.loads((tmp_path / "results" / "metrics" / "run_summary.json").read_text())
    others = ", ".join(f"{summary[s]} {s}" for s in ("duplicate", "reused", "rejected") if summary[s])
    others += ", " if others else ""
    foretold = (
        f"10 records: {others}{summary['embedded']} distinct sequences to embed in {summary['shards']} shards on CPU"
    )
    before, after = finished.stdout.split(foretold)
    assert "EMBED_SHARD" not in before
    tasks = re.findall(r"EMBED_SHARD \((shard-\d{5}), ([\d,]+) sequences?, ([\d,]+) residues\)", after)
    assert len(tasks) == summary["shards"] > 1
    assert sum(int(sequences.replace(",", "")) for _, sequences, _ in tasks) == summary["embedded"]
    assert sum(int(residues.replace(",", "")) for *_, residues in tasks) == summary["tokens"] - 2 * summary["embedded"]
    (split,) = (path for path in tmp_path.glob("work/*/*/.command.sh") if "split_fasta.py" in path.read_text())
    assert f" --cpus {min(os.cpu_count() or 1, 4)} " in split.read_text()
    assert re.search(r"SPLIT_FASTA \(few.fasta, [\d.]+ KB\)", before)
    assert f"MERGE_EMBEDDINGS (shards: {summary['shards']})" in after
    (total, steps) = re.findall(r"^Of the run's ([\d.]+) s: (.+)\.$", after, re.MULTILINE)[0]
    spent = {step: float(seconds) for step, seconds in re.findall(r"(\w+) ([\d.]+)", steps)}
    assert list(spent) == ["DESCRIBE_MODEL", "SPLIT_FASTA", "EMBED_SHARD", "MERGE_EMBEDDINGS", "Nextflow"]
    assert sum(spent.values()) == pytest.approx(float(total), abs=0.5 * len(spent))


def test_a_report_that_fails_is_told_in_words_and_the_results_are_whole(tmp_path: Path) -> None:
    """In a folder whose name would be a glob: what the task said is looked up in the work folder."""
    tmp_path = tmp_path / "run [1] {a}"
    broken = tmp_path / "broken" / "multiqc"
    broken.mkdir(parents=True)
    (broken / "__init__.py").touch()
    (broken / "__main__.py").write_text("raise SystemExit('MultiQC is out of order')\n")
    finished = run_pipeline(tmp_path, PYTHONPATH=str(broken.parent))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (tmp_path / "results" / "embeddings" / "part-00000.parquet").is_file()
    printed = finished.stdout + finished.stderr
    last = printed.strip().splitlines()[-1]
    assert last.startswith("No report: report.py: error: MultiQC ended with 1 and no page: MultiQC is out of order")
    assert f"report.py --results '{tmp_path}/results' --outdir '{tmp_path}/results/report'" in last


@pytest.mark.one_engine
def test_a_run_without_a_report_makes_none(tmp_path: Path) -> None:
    finished = run_pipeline(tmp_path, "--report", "false")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (tmp_path / "results" / "embeddings" / "part-00000.parquet").is_file()
    assert not (tmp_path / "results" / "report").exists()
    assert [path.name for path in (tmp_path / "results" / "pipeline_info").iterdir()] == ["trace.txt"]
    assert "REPORT" not in (tmp_path / "results" / "pipeline_info" / "trace.txt").read_text()
