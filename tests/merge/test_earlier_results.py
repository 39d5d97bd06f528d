"""Results of earlier versions, which do not tell what is beyond the trained length, by the programs that read them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from e2e.launch import MODEL, PROJECT
from merge.older_results import without_later_facts

SEQUENCES = ("MKTAYIAKQRQISFVKSHFSRQ", "MVLSPADKTNVKAAW", "MKTLLVWAGHERSDPNIYQF" * 60)
OPTIONS = ("--model", MODEL, "--gpus=0", "--no-report", "--layers=0", "--long-sequences=full")


def program(folder: Path, *arguments: str | Path) -> str:
    command = [sys.executable, "-m", "virnucpro", *map(str, arguments)]
    environment = {"PYTHONPATH": str(PROJECT / "bin"), "PATH": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results in ``new``, and in ``old`` as they were."""
    folder = tmp_path_factory.mktemp("earlier")
    (folder / "in.fasta").write_text("".join(f">{i}\n{each}\n" for i, each in enumerate(SEQUENCES)))
    program(folder, "embed", "in.fasta", "-o", "new", *OPTIONS)
    without_later_facts(Path(shutil.copytree(folder / "new", folder / "old")))
    assert "beyond_trained_length" not in pq.read_table(folder / "old" / "embeddings").column_names
    return folder


def test_they_are_proved_and_exported(folder: Path) -> None:
    for name in ("new", "old"):
        assert f"{name}: whole: " in program(folder, "verify", name)
        program(folder, "export", "--results", name, "--to", "npy", "--outdir", f"{name}.npy")
    matrices = [np.load(folder / f"{name}.npy" / "embedding.npy") for name in ("new", "old")]
    assert matrices[0].shape == (3, 320) and np.array_equal(*matrices)


def test_they_are_reused_and_the_new_rows_tell(folder: Path) -> None:
    (folder / "more.fasta").write_text((folder / "in.fasta").read_text() + ">3\nMKVL\n")
    program(folder, "embed", "more.fasta", "-o", "more", "--reuse", "old", *OPTIONS)
    ledger = pq.read_table(folder / "more" / "manifest.parquet")
    assert ledger["status"].to_pylist() == ["reused", "reused", "reused", "embedded"]
    rows, old = pq.read_table(folder / "more" / "embeddings"), pq.read_table(folder / "old" / "embeddings")
    assert rows["beyond_trained_length"].to_pylist() == [False, False, True, False]
    assert rows["embedding"].to_pylist()[:3] == old["embedding"].to_pylist()
    assert "more: whole: " in program(folder, "verify", "more")


def test_annotated_data_tells_where_results_do(folder: Path) -> None:
    anndata = pytest.importorskip("anndata")
    for name in ("new", "old"):
        program(folder, "export", "--results", name, "--to", "h5ad", "--outdir", f"{name}.h5ad")
    new, old = (anndata.read_h5ad(folder / f"{name}.h5ad" / "embeddings.h5ad").obs for name in ("new", "old"))
    assert new["beyond_trained_length"].tolist() == [False, False, True]
    assert [name for name in new if name != "beyond_trained_length"] == list(old)


def test_a_page_is_drawn_of_them(folder: Path) -> None:
    pytest.importorskip("multiqc")
    program(folder, "report", "--results", "old", "--outdir", "report")
    assert (folder / "report" / "multiqc_report.html").stat().st_size > 100_000
