"""A clone in which nothing was made: what ``nextflow run`` finds there, and what it fetches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from launch import PROJECT, launch
from model.hub_server import serve
from model.official_models import save_official
from safetensors.numpy import load_file

TINY = PROJECT / "assets" / "esm2_tiny"
OFFICIAL = "esm2_t6_8M_UR50D"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The tracked files as they lie here, without what make fetches."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        source = PROJECT / name
        if name and source.is_file() and not name.startswith(("benchmarks/results/", "docs/")):
            target = tmp_path / "clone" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            target.chmod(source.stat().st_mode)
    return tmp_path / "clone"


def model_of(results: Path) -> dict[str, object]:
    summary = json.loads((results / "metrics" / "run_summary.json").read_text())
    return dict(summary["model"])


def test_the_test_profile_needs_nothing_else(clone: Path, tmp_path: Path) -> None:
    run = launch(tmp_path, "-profile", "test", project=clone, environment={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert run.code == 0, run.output
    assert "12 records, none rejected" in run.output
    assert pq.read_table(run.results / "embeddings").num_rows == 12
    assert (run.results / "report" / "multiqc_report.html").is_file()
    assert model_of(run.results)["name"] == "esm2_tiny"


@pytest.mark.one_engine
def test_the_demo_profile_fetches_the_official_model_once(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "in.fasta").write_text(">a\nMKVLAT\n>b\nMKV\n")
    options = ("-profile", "demo", "--input", tmp_path / "in.fasta", "--report", "false", "--neighbours", "1")
    with serve(f"facebook/{OFFICIAL}", save_official(OFFICIAL, tmp_path / OFFICIAL, dense=True)) as hub:
        online = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0"}
        run = launch(tmp_path, *options, "--model_cache", "models", project=clone, environment=online)
    assert run.code == 0, run.output
    assert model_of(run.results)["name"] == OFFICIAL


@pytest.mark.one_engine
def test_the_tiny_model_is_what_its_program_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, PROJECT / "tools" / "make_tiny_model.py", tmp_path], check=True)
    assert (tmp_path / "config.json").read_bytes() == (TINY / "config.json").read_bytes()
    kept, made = (load_file(folder / "model.safetensors") for folder in (TINY, tmp_path))
    assert kept.keys() == made.keys()
    for name, array in kept.items():
        np.testing.assert_allclose(array, made[name], rtol=1e-6)
