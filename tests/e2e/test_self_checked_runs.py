"""Runs whose kernels are wrong, through the real pipeline: what they publish is right, and says what was found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from launch import PROJECT, Launch, launch

sys.path.append(str(PROJECT / "tests" / "model"))

from esm2_reference import reference_states, save_fair_esm, sharp_esm2

pytestmark = pytest.mark.one_engine

PROTEINS = {"a": "MKTAYIAKQRQISFVKSHFSRQ", "b": "ACDEFGHIKLMNPQRSTVWY" * 2, "c": "G", "d": "MVLSPADKTNVKAAW"}
FIGURES = ("greatest_residue_l2", "least_pooled_cosine")


def run(folder: Path, *options: str, where: str) -> Launch:
    """Embed the proteins with an attention that is wrong by one part in a hundred."""
    model = save_fair_esm(sharp_esm2(), folder / "small.pt")
    fasta = folder / "few.fasta"
    fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in PROTEINS.items()))
    wrong = {"target": "virnucpro.kernels.attention:varlen_attention", "factor": 1.01, "where": where}
    environment = {"PYTHONPATH": str(PROJECT / "tests" / "faults"), "VIRNUCPRO_WRONG": json.dumps(wrong)}
    arguments = ["--input", fasta, "--model", model, "--shard_residues", "50", *options]
    return launch(folder, *arguments, environment=environment | {"TRITON_INTERPRET": "1"})


def found(done: Launch) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """run_summary.json, the metadata of the vectors, and the rows of shards.parquet."""
    assert done.code == 0, done.output
    summary = json.loads((done.results / "metrics" / "run_summary.json").read_text())
    metadata = pq.read_schema(done.results / "embeddings" / "part-00000.parquet").metadata[b"virnucpro"]
    return summary, json.loads(metadata), pq.read_table(done.results / "metrics" / "shards.parquet").to_pylist()


@pytest.mark.faults(
    "a kernel that computes wrongly", "`nextflow run`", "the vectors of PyTorch's operations, and a line"
)
def test_a_run_with_a_wrong_kernel_publishes_what_the_plain_path_computes(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    done = run(tmp_path, where="kernel")
    summary, metadata, shards = found(done)
    table = pq.read_table(done.results / "embeddings")
    vectors = dict(zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    reference = sharp_esm2()
    for name, sequence in PROTEINS.items():
        expected = reference_states(reference, sequence, [2])[2][1:-1].mean(0).numpy()
        np.testing.assert_allclose(vectors[name], expected, rtol=1e-4, atol=2e-5)
    assert len(shards) == 2
    assert summary["self_check"] == {"plain": 2}
    assert summary["attention"] == ["sdpa"]
    worst = {name: pick(row[name] for row in shards) for name, pick in zip(FIGURES, (max, min), strict=True)}
    for told in (summary, metadata):
        assert {name: told[name] for name in FIGURES} == worst
    (line,) = (line for line in done.output.splitlines() if line.startswith("Self-check against fp32: "))
    assert f"greatest residue L2 {worst['greatest_residue_l2']:.1e}" in line
    assert line.endswith("by PyTorch's operations alone, as kernels were beyond the bounds, in 2 of 2.")
    page = (done.results / "report" / "multiqc_report.html").read_text()
    assert "Self-check against fp32: greatest residue L2" in page


def test_a_run_that_is_not_to_check_itself_does_not(tmp_path: Path) -> None:
    summary, metadata, shards = found(run(tmp_path, "--self_check", "false", "--report", "false", where="everywhere"))
    assert summary["self_check"] == {"off": 2}
    for told in (summary, metadata, *shards):
        assert [told[name] for name in FIGURES] == [None, None]
    assert not any("Self-check" in line for line in summary["verdict"])
