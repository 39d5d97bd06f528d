"""Earlier results in the whole pipeline: only what is new is embedded, and nothing at all where all is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from launch import MODEL, PROJECT, Launch, launch
from one_bit import flip_a_bit

DEMO = PROJECT / "assets" / "proteins.fasta"
NEW = (
    "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ",
    "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMF",
    "MGSSHHHHHHSSGLVPRGSHMASMTGGQ",
    "MASNDYTQ",
)


def embed(folder: Path, fasta: Path, *options: str | Path) -> Launch:
    common = ("--input", fasta, "--model", MODEL, "--max_length", "40", "--report", "false")
    run = launch(folder, *common, *options)
    assert run.code == 0, run.output
    return run


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    return embed(tmp_path_factory.mktemp("earlier"), DEMO)


def summary(run: Launch) -> dict[str, int]:
    found: dict[str, int] = json.loads((run.results / "metrics" / "run_summary.json").read_text())
    return found


@pytest.mark.one_engine
def test_one_per_cent_more_embeds_exactly_that(earlier: Launch, tmp_path: Path) -> None:
    known = summary(earlier)
    fasta = tmp_path / "release.fasta"
    added = "".join(f">new{i}\n{residues}\n" for i, residues in enumerate(NEW))
    fasta.write_text(f"{DEMO.read_text()}{added}")
    assert 0.01 <= len(NEW) / known["records"] < 0.02
    run = embed(tmp_path / "run", fasta, "--reuse", earlier.results)
    rows = pq.read_table(run.results / "manifest.parquet").to_pylist()
    assert [row["id"] for row in rows if row["status"] == "embedded"] == [f"new{i}" for i in range(len(NEW))]
    assert {row["status"] for row in rows} <= {"embedded", "reused"}
    first, second = (pq.read_table(each.results / "embeddings") for each in (earlier, run))
    count = first.num_rows
    assert second.num_rows == count + len(NEW)
    before, after = (np.array(table["embedding"].to_pylist()) for table in (first, second))
    assert np.array_equal(before, after[:count]) and np.isfinite(after[count:]).all()


def test_reusing_everything_runs_no_task_on_the_gpu(earlier: Launch, tmp_path: Path) -> None:
    run = embed(tmp_path / "run", DEMO, "--reuse", earlier.results)
    assert set(run.statuses()) == {"DESCRIBE_MODEL", "SPLIT_FASTA", "MERGE_EMBEDDINGS"}
    first, second = (pq.read_table(each.results / "embeddings") for each in (earlier, run))
    assert first["embedding"].equals(second["embedding"])


@pytest.mark.one_engine
def test_a_byte_that_changed_in_earlier_results_ends_the_run(earlier: Launch, tmp_path: Path) -> None:
    results = Path(shutil.copytree(earlier.results, tmp_path / "earlier"))
    part = results / "embeddings" / "part-00000.parquet"
    flip_a_bit(part)
    common = ("--input", DEMO, "--model", MODEL, "--max_length", "40", "--report", "false")
    run = launch(tmp_path / "run", *common, "--reuse", results)
    assert run.code == 65
    assert f" {part}: not as it was written, a byte was changed" in run.output.splitlines()[-1]
    assert run.published() == []


@pytest.mark.one_engine
def test_a_layer_named_twice_is_one_vector_reused_either_way(tmp_path: Path) -> None:
    few = PROJECT / "tests" / "fixtures" / "few.fasta"
    twice = embed(tmp_path / "twice", few, "--layers=-1,6", "--pooling", "mean,mean")
    table = pq.read_table(twice.results / "embeddings")
    assert [name for name in table.column_names if name.startswith("embedding")] == ["embedding"]
    results = twice.results
    for name, layers in (("once", "6"), ("again", "-1,6")):
        run = embed(tmp_path / name, few, f"--layers={layers}", "--reuse", results)
        assert set(run.statuses()) == {"DESCRIBE_MODEL", "SPLIT_FASTA", "MERGE_EMBEDDINGS"}
        assert summary(run)["reused"] == table.num_rows
        assert "Not reused" not in run.output
        assert pq.read_table(run.results / "embeddings")["embedding"].equals(table["embedding"])
        results = run.results


@pytest.mark.one_engine
def test_a_refused_reuse_is_told_with_the_users_path_before_and_after_the_work(earlier: Launch, tmp_path: Path) -> None:
    few = PROJECT / "tests" / "fixtures" / "few.fasta"
    mine = tmp_path / "it's my old run"
    mine.symlink_to(earlier.results)
    run = embed(tmp_path / "run", few, "--layers", "1", "--reuse", mine)
    told = f"Not reused: {mine}: layers is 6 there and 1 here"
    before, after = run.output.split("Submitted process > EMBED_SHARD")
    assert told in before and told in after
    facts = json.loads((run.results / "metrics" / "run_summary.json").read_text())
    assert facts["reuse"] == [{"results": str(mine), "used": False, "reason": "layers is 6 there and 1 here"}]
    assert facts["parameters"]["reuse"] == [str(mine)]
    lengths = [
        row["length"]
        for row in pq.read_table(run.results / "manifest.parquet").to_pylist()
        if row["status"] == "embedded"
    ]
    tokens = [min(length, 40) + 2 for length in lengths]
    flops = sum(24 * 320**2 * n + 4 * 320 * n**2 for n in tokens)
    seconds = facts["tokens"] / facts["tokens_per_second"]
    assert facts["teraflops_per_second"] == pytest.approx(flops / seconds / 1e12)
    shards = pq.read_table(run.results / "metrics" / "shards.parquet").to_pylist()
    assert shards[0]["teraflops_per_second"] == pytest.approx(facts["teraflops_per_second"])
