"""What users bring as FASTA, through the whole pipeline."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from foreign_files import COMPRESSORS, write
from launch import MODEL, launch

pytestmark = pytest.mark.one_engine


def test_four_compressions_and_peptides_that_look_like_dna(tmp_path: Path) -> None:
    peptides = {"gzip": "GATTACAGATTACAGATTACA", "bzip2": "CATAGATTA", "xz": "NANTACG", "zstd": "AGAGATT"}
    for name, peptide in peptides.items():
        write(tmp_path, name, COMPRESSORS[name](f">{name}\n{peptide}\n".encode()))
    names = ",".join(f"{name}.fasta" for name in peptides)
    run = launch(tmp_path, "--input", names, "--model", MODEL, "--alphabet", "protein", "--report", "false")
    assert run.code == 0, run.output
    table = pq.read_table(run.results / "embeddings")
    assert table["id"].to_pylist() == list(peptides)
    assert table["length"].to_pylist() == [len(peptide) for peptide in peptides.values()]
    assert table["embedding"].null_count == 0
