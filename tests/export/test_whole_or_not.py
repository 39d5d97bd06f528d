"""An export is whole or not there, of results as they were written; it replaces an export and nothing else."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from finished_results import PROJECT, Embedded, identical, program
from one_bit import flip_a_bit

from virnucpro.export.config import LAYOUTS, RESIDUE_LAYOUTS

PACKAGES = {"uniprot": "h5py", "bio_embeddings": "h5py", "h5ad": "anndata", "scikit-bio": "h5py", "faiss": "faiss"}


def export(results: Path, to: str, outdir: Path, *options: str, code: int = 0) -> str:
    return program("export.py", "--results", results, "--to", to, "--outdir", outdir, *options, code=code)


def test_an_export_is_replaced_only_when_asked_for(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(results, "fair-esm", out)
    said = export(results, "npy", out, code=2)
    assert said.rstrip().endswith(
        "exists already and is not empty; name another --outdir, or replace an earlier export with --overwrite"
    )
    export(results, "npy", out, "--overwrite")
    assert sorted(path.name for path in out.iterdir()) == ["embedding.npy", "export.json", "ids.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    told = json.loads((out / "export.json").read_text())
    assert (told["to"], told["proteins"]) == ("npy", 10) and told["vectors"]["weights_sha256"]


@pytest.mark.parametrize("name", ["mine.txt", "mine.pt"])
def test_what_no_export_left_is_never_replaced(results: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    export(results, "fair-esm", out)
    (out / name).write_text("mine")
    assert "in it" in export(results, "npy", out, "--overwrite", code=2)
    assert (out / name).read_text() == "mine" and (out / "export.json").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_text("mine")
    assert "not an export" in export(results, "npy", tmp_path / "other", "--overwrite", code=2)
    assert (tmp_path / "other" / name).read_text() == "mine"


@pytest.mark.parametrize("to", LAYOUTS)
def test_a_full_disk_leaves_nothing_and_the_earlier_export(results: Path, tmp_path: Path, to: str) -> None:
    """A limit on the size of files stands for the full disk: full soon, and at the last byte."""
    pytest.importorskip(PACKAGES.get(to, "numpy"))
    out = tmp_path / "out"
    options = ("--to", to, "--outdir", out, *(("--per-residue",) if to in RESIDUE_LAYOUTS else ()))
    program("export.py", "--results", results, *options)
    size = max(path.stat().st_size for path in out.iterdir())
    shutil.rmtree(out)
    export(results, "npy", out)
    for limit in (700, size - 1):
        done = subprocess.run(
            [sys.executable, PROJECT / "bin" / "export.py", "--results", results, *options, "--overwrite"],
            env={**os.environ, "PYTHONPATH": str(PROJECT / "bin"), "PYTHONDONTWRITEBYTECODE": "1"},
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 74, (limit, done.stderr)
        (line,) = done.stderr.splitlines()
        assert line.startswith("export.py: error: ") and str(out) in line, line
        assert line.endswith("; check free space and permissions")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert identical(np.load(out / "embedding.npy"), Embedded.read(results).vectors())


@pytest.mark.parametrize("to", LAYOUTS)
def test_the_command_writes_the_same_files(results: Path, tmp_path: Path, to: str) -> None:
    """``virnucpro`` starts programs by another way, which may not withhold what a layout needs."""
    pytest.importorskip(PACKAGES.get(to, "numpy"))
    options = ("--results", results, "--to", to, *(("--per-residue",) if to in RESIDUE_LAYOUTS else ()))
    program("export.py", *options, "--outdir", tmp_path / "program")
    program("virnucpro", "export", *options, "--outdir", tmp_path / "command")
    written = [sorted(path.name for path in (tmp_path / way).iterdir()) for way in ("program", "command")]
    assert written[0] and written[0] == written[1]


@pytest.mark.parametrize("name", ["manifest.parquet", "embeddings/part-00000.parquet", "residues/part-00000.parquet"])
def test_changed_results_are_refused(results: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("h5py")
    shutil.copytree(results, tmp_path / "results")
    flip_a_bit(tmp_path / "results" / name)
    said = export(tmp_path / "results", "uniprot", tmp_path / "out", "--per-residue", code=65)
    assert name in said and len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_what_the_list_does_not_name_is_not_exported(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "results")
    parts = tmp_path / "results" / "embeddings"
    shutil.copy(parts / "part-00000.parquet", parts / "part-00001.parquet")
    export(tmp_path / "results", "npy", tmp_path / "out")
    assert identical(np.load(tmp_path / "out" / "embedding.npy"), Embedded.read(results).vectors())
