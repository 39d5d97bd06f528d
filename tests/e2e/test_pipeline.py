"""The whole pipeline on a few of the demo's proteins with the demo's trained encoder."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from launch import MODEL, PROJECT, Launch, launch

NAMES = ("plain.fasta", 'two words & o\'clock "quoted".fa', "same/proteins.faa.gz", "other/proteins.faa.gz")


def demo_records(count: int) -> list[str]:
    records = (PROJECT / "assets" / "proteins.fasta").read_text().split(">")[1:]
    return sorted((record for record in records if len(record) < 500), key=len)[::6][:count]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four files: odd names, two with one name, one with a record that is rejected; one record twice."""
    folder = tmp_path_factory.mktemp("inputs")
    records = demo_records(24)
    records[7] = ">digits 12345\nMKV123\n".removeprefix(">")
    records[9] = records[3]
    paths = []
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        text = "".join(f">{record}" for record in records[6 * number : 6 * number + 6])
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def run(inputs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Launch:
    folder = tmp_path_factory.mktemp("run")
    return launch(folder, *arguments(inputs))


def arguments(inputs: list[Path]) -> list[str]:
    several = ",".join(map(str, inputs))
    return ["--input", several, "--model", str(MODEL), "--shard_residues", "1200", "--report", "false"]


def test_every_record_has_one_row_or_one_reason(run: Launch, inputs: list[Path]) -> None:
    assert run.code == 0, run.output
    ledger = pq.read_table(run.results / "manifest.parquet").to_pylist()
    rows = pq.read_table(run.results / "embeddings").to_pylist()
    texts = [gzip.decompress(p.read_bytes()).decode() if p.suffix == ".gz" else p.read_text() for p in inputs]
    expected = [record.split()[0] for text in texts for record in text.split(">")[1:]]

    assert [row["id"] for row in ledger] == expected
    assert [row["file"] for row in ledger] == [str(path) for path in inputs for _ in range(6)]
    assert [row["id"] for row in rows] == [name for name in expected if name != "digits"]
    assert [row["ordinal"] for row in rows] == [n for n in range(24) if n != 7]
    assert all(len(row["embedding"]) == 320 and np.isfinite(row["embedding"]).all() for row in rows)
    assert rows[8]["embedding"] == rows[3]["embedding"]
    assert (run.results / "rejected.tsv").read_text().splitlines()[1].split("\t")[3] == "digits"


def test_the_results_prove_themselves(run: Launch) -> None:
    command = [sys.executable, str(PROJECT / "bin" / "verify.py"), str(run.results)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{run.results}: whole: ") and ", 24 records, 23 vectors of " in done.stdout


def test_several_shards_were_embedded(run: Launch) -> None:
    summary = json.loads((run.results / "metrics" / "run_summary.json").read_text())
    assert summary["shards"] >= 2
    assert (summary["records"], summary["rejected"]) == (24, 1)


def test_the_run_says_what_it_does_and_where_the_results_are(run: Launch) -> None:
    assert "compute CPU, fp32" in run.output
    assert "24 records, 1 rejected" in run.last_lines
    assert str(run.results / "embeddings") in run.last_lines


@pytest.mark.one_engine
def test_vectors_equal_those_of_one_shard(run: Launch, inputs: list[Path], tmp_path: Path) -> None:
    single = launch(tmp_path, *arguments(inputs), "--shard_residues", "1000000")
    assert single.code == 0, single.output
    first, second = (
        np.array(pq.read_table(each.results / "embeddings")["embedding"].to_pylist()) for each in (run, single)
    )
    error = np.linalg.norm(first - second, axis=1) / np.linalg.norm(second, axis=1)
    assert error.max() <= 1e-6


def test_resume_runs_nothing_again(run: Launch, inputs: list[Path]) -> None:
    again = launch(run.folder, *arguments(inputs), "-resume")
    assert again.code == 0, again.output
    assert set(again.statuses()) == {"DESCRIBE_MODEL", "SPLIT_FASTA", "EMBED_SHARD", "MERGE_EMBEDDINGS"}
    assert set().union(*again.statuses().values()) == {"CACHED"}


def test_the_order_of_files_is_part_of_the_input(run: Launch, inputs: list[Path]) -> None:
    turned = launch(run.folder, *arguments(inputs[::-1]), "--outdir", "turned", "-resume")
    assert turned.code == 0, turned.output
    files = pq.read_table(run.folder / "turned" / "manifest.parquet")["file"].to_pylist()
    assert files[0] == str(inputs[-1])
