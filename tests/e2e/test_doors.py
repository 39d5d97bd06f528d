"""The pipeline, the command without Nextflow and the Python function: the same vectors bit for bit, on the CPU."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from launch import MODEL, PROJECT, launch

from virnucpro import embed
from virnucpro.output.schema import decode_metadata

pytestmark = pytest.mark.one_engine
OPTIONS = {"max_length": 300, "layers": (3, -1), "pooling": ("mean", "max")}
RULES = (">gaps\nMKT-AYIAK.QRQ\n>low\nmktayiakqrq*\n>unknown\nMKJ*AY\n>digits\nMK7\n>\nMASNDYTQ\n>again\nMASNDYTQ\n",)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real proteins of many lengths, and records that meet each rule."""
    path = tmp_path_factory.mktemp("doors") / "proteins.fasta"
    records = (PROJECT / "assets" / "proteins.fasta").read_text().split(">")[1:61]
    path.write_text("".join(f">{record}" for record in records) + "".join(RULES))
    return path


@pytest.fixture(scope="module")
def pipeline(fasta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ["--max_length", "300", "--layers=3,-1", "--pooling", "mean,max", "--report", "false"]
    run = launch(tmp_path_factory.mktemp("pipeline"), "--input", fasta, "--model", MODEL, *options)
    assert run.code == 0, run.output
    return run.results


def bits(table: pa.Table) -> dict[str, bytes]:
    names = [name for name in table.column_names if name.startswith("embedding")]
    return {name: table[name].combine_chunks().flatten().to_numpy().tobytes() for name in names}


def test_the_function_gives_the_rows_of_the_pipeline(pipeline: Path, fasta: Path) -> None:
    expected = pq.read_table(pipeline / "embeddings")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = embed(fasta, model=MODEL, device="cpu", **OPTIONS)
    facts = found.column_names[:6]
    assert facts[-1] == "sequence_key"
    assert found.num_rows == 65
    assert found.select(facts).to_pylist() == expected.select(facts).to_pylist()
    assert len(bits(found)) == 4 and bits(found) == bits(expected)
    assert decode_metadata(found.schema, "") == decode_metadata(expected.schema, "")


def test_the_command_leaves_the_results_of_the_pipeline(pipeline: Path, fasta: Path, tmp_path: Path) -> None:
    options = ["--max_length", "300", "--layers=3,-1", "--pooling", "mean,max", "--gpus", "0", "--no-report"]
    command = [sys.executable, "-m", "virnucpro", "embed", fasta, "-o", "out", "--model", MODEL, *options]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(PROJECT / "bin"), "PATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "1 records rejected" in done.stdout and done.stdout.endswith("Results: out\n")
    assert (done.stdout + done.stderr).count("Where the time went") == 1
    published = {path.relative_to(pipeline) for path in pipeline.rglob("*") if path.is_file()}
    left = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left == {path for path in published if path.parts[0] not in ("pipeline_info", ".virnucpro")}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    tables = [pq.read_table(results / "embeddings") for results in (pipeline, tmp_path / "out")]
    assert bits(tables[0]) == bits(tables[1])
    assert decode_metadata(tables[0].schema, "") == decode_metadata(tables[1].schema, "")
    ledgers = [
        pq.read_table(results / "manifest.parquet").drop_columns("file") for results in (pipeline, tmp_path / "out")
    ]
    assert ledgers[0].equals(ledgers[1])
    assert np.isfinite(np.frombuffer(bits(tables[1])["embedding_max_layer3"], np.float32)).all()
