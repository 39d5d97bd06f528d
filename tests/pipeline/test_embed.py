"""One shard end to end on the CPU: FASTA to Parquet through the loader's processes, the engine and the writer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import xxhash
from pipeline.models import fair_esm_mean, random_sequences, save_fair_esm, small_esm2

from virnucpro.config import Windows
from virnucpro.errors import DataError, InputMissingError, ModelError
from virnucpro.model.proof import WeightsProof
from virnucpro.output.residue_reader import read_residues
from virnucpro.pipeline.extent import ShardExtent, shard_extent

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in fair-esm's layout and its description."""
    folder = tmp_path_factory.mktemp("model")
    save_fair_esm(small_esm2(), folder / "small.pt")
    run("fetch_model.py", "--model", folder / "small.pt", "--outdir", folder)
    return folder


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty sequences, unique indices 100 to 139, longest first."""
    sequences = random_sequences(40, 3, longest=60)
    order = sorted(range(40), key=lambda i: (-len(sequences[i]), i))
    path = tmp_path_factory.mktemp("shards") / "shard-00007.fasta"
    path.write_text("".join(f">{100 + i}\n{sequences[i]}\n" for i in order))
    return path


def run(script: str, *arguments: object, succeeds: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bin" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode == 0) is succeeds, done.stderr
    return done


def embed(
    shard: Path, model: Path, outdir: Path, *options: object, succeeds: bool = True
) -> subprocess.CompletedProcess[str]:
    paths = ("--shard", shard, "--model", model / "small.pt", "--model-json", model / "model.json", "--outdir", outdir)
    return run("embed_shard.py", *paths, "--device", "cpu", "--threads", 1, *options, succeeds=succeeds)


def vectors(outdir: Path) -> np.ndarray:
    column = pq.read_table(outdir / "embeddings.parquet")["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


@pytest.fixture(scope="module")
def embedded(shard: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    outdir = tmp_path_factory.mktemp("embedded") / "shard-00007"
    embed(shard, model, outdir, "--token-budget", 200, "--workers", 1)
    return outdir


def test_every_sequence_has_its_vector_in_order(embedded: Path) -> None:
    table = pq.read_table(embedded / "embeddings.parquet")
    assert table["unique_index"].to_pylist() == list(range(100, 140))
    reference = small_esm2()
    expected = torch.stack([fair_esm_mean(reference, s) for s in random_sequences(40, 3, longest=60)])
    np.testing.assert_allclose(vectors(embedded), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_the_summary_says_how_it_went(embedded: Path) -> None:
    summary = json.loads((embedded / "summary.json").read_text())
    assert summary["sequences"] == 40
    assert summary["tokens"] == sum(len(s) + 2 for s in random_sequences(40, 3, longest=60))
    assert summary["startup_seconds"] > 0
    assert summary["metadata"]["precision"] == "fp32"
    batches = pq.read_table(embedded / "batches.parquet").to_pydict()
    assert sum(batches["sequences"]) == 40
    assert all(tokens <= 200 for tokens in batches["tokens"])
    metadata = json.loads(pq.read_schema(embedded / "embeddings.parquet").metadata[b"virnucpro"])
    summary = json.loads((embedded / "summary.json").read_text())
    assert metadata["weights_sha256"] == summary["metadata"]["weights_sha256"]


@pytest.mark.parametrize(("layers", "computed"), [("1", 1), ("0", 0), ("-1,2,-2", 2)])
def test_the_summary_counts_the_layers_that_were_computed(
    shard: Path, model: Path, tmp_path: Path, layers: str, computed: int
) -> None:
    done = embed(shard, model, tmp_path / "out", "--workers", 1, f"--layers={layers}")
    tokens = [len(sequence) + 2 for sequence in random_sequences(40, 3, longest=60)]
    flops = sum(24 * computed * 32**2 * n + 4 * computed * 32 * n**2 for n in tokens)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["flops"] == flops
    seconds = summary["tokens"] / summary["tokens_per_second"]
    assert summary["teraflops_per_second"] == pytest.approx(flops / seconds / 1e12)
    assert ("TFLOP/s" in done.stderr) is (computed > 0)
    names = {"1": ["embedding"], "0": ["embedding"]}.get(layers, ["embedding_mean_layer2", "embedding_mean_layer1"])
    schema = pq.read_schema(tmp_path / "out" / "embeddings.parquet")
    assert [name for name in schema.names if name.startswith("embedding")] == names


@pytest.mark.parametrize("workers", [[], ["--workers", 3]], ids=["none", "three"])
def test_vectors_are_bit_identical_for_any_number_of_workers(
    shard: Path, model: Path, embedded: Path, tmp_path: Path, workers: list[object]
) -> None:
    embed(shard, model, tmp_path / "again", "--token-budget", 200, *workers)
    assert np.array_equal(vectors(tmp_path / "again"), vectors(embedded))
    batches = [pq.read_table(folder / "batches.parquet") for folder in (tmp_path / "again", embedded)]
    assert batches[0]["tokens"] == batches[1]["tokens"] and batches[0]["longest"] == batches[1]["longest"]


def test_another_budget_changes_vectors_by_rounding_only(
    shard: Path, model: Path, embedded: Path, tmp_path: Path
) -> None:
    embed(shard, model, tmp_path / "other", "--token-budget", 90, "--attempt", 2, "--workers", 1)
    got, expected = vectors(tmp_path / "other"), vectors(embedded)
    relative = np.linalg.norm(got - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert relative.max() <= 1e-6
    assert len(pq.read_table(tmp_path / "other" / "batches.parquet")) > len(pq.read_table(embedded / "batches.parquet"))


def test_residues_are_written_beside_the_vectors(shard: Path, model: Path, tmp_path: Path) -> None:
    embed(shard, model, tmp_path / "residues", "--per-residue", "--workers", 1)
    part = tmp_path / "residues" / "residues" / "part-00000.parquet"
    found = {key: matrices["residues"] for key, matrices in read_residues(part, ["residues"])}
    sequences = random_sequences(40, 3, longest=60)
    keys = [xxhash.xxh3_128_hexdigest(sequence.encode()) for sequence in sequences]
    assert sorted(found) == sorted(keys)
    for key, sequence, vector in zip(keys, sequences, vectors(tmp_path / "residues"), strict=True):
        assert len(found[key]) == len(sequence)
        np.testing.assert_allclose(found[key].mean(axis=0, dtype=np.float32), vector, rtol=1e-2, atol=1e-3)


def test_an_empty_shard_leaves_an_empty_table(model: Path, tmp_path: Path) -> None:
    (tmp_path / "shard-00000.fasta").write_text("")
    embed(tmp_path / "shard-00000.fasta", model, tmp_path / "out")
    assert len(pq.read_table(tmp_path / "out" / "embeddings.parquet")) == 0


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (">7\nMKT\n>9\nMK\n", 65, "does not hold one unbroken range"),
        (">sp|P1\nMKT\n", 65, "headers must be bare numbers"),
        (None, 66, "does not exist"),
    ],
)
def test_a_bad_shard_leaves_nothing_and_says_why(
    text: str | None, code: int, message: str, model: Path, tmp_path: Path
) -> None:
    shard = tmp_path / "shard-00000.fasta"
    if text is not None:
        shard.write_text(text)
    done = embed(shard, model, tmp_path / "out", succeeds=False)
    assert done.returncode == code
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "embeddings.parquet").exists()


def test_extent_of_a_shard(tmp_path: Path) -> None:
    path = tmp_path / "shard-00007.fasta"
    path.write_text(">6\nMKTAA\n>5\nMK\n")
    assert shard_extent(path) == ShardExtent(7, 5, 2, 7 + 2 * 2)
    assert shard_extent(path, Windows(2, 0)) == ShardExtent(7, 5, 2, 3 * (2 + 2) + (2 + 2))
    assert shard_extent(path, Windows(4, 2)) == ShardExtent(7, 5, 2, 2 * (4 + 2) + (2 + 2))
    path.write_text(">6\nMKTAA\n>6\nMK\n")
    with pytest.raises(DataError, match="unbroken range"):
        shard_extent(path)
    with pytest.raises(InputMissingError):
        shard_extent(tmp_path / "none.fasta")
    with pytest.raises(DataError, match="named like shard-00000"):
        shard_extent(path.rename(tmp_path / "proteins.fasta"))


def test_every_row_carries_the_key_of_what_was_tokenised(shard: Path, embedded: Path) -> None:
    found = pq.read_table(embedded / "embeddings.parquet")["sequence_key"].to_pylist()
    assert found == [xxhash.xxh3_128_digest(s.encode()) for s in random_sequences(40, 3, longest=60)]


@pytest.mark.faults("weights replaced after they were described", "a shard", "69; no output")
def test_weights_that_were_swapped_since_they_were_described_are_refused(
    shard: Path, model: Path, tmp_path: Path
) -> None:
    """Another model of the same sizes under the same name, with the old one's times."""
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    before = (folder / "small.pt").stat()
    weights = small_esm2()
    with torch.no_grad():
        weights.layers[0].fc1.weight[0, 0] += 1
    save_fair_esm(weights, folder / "small.pt")
    os.utime(folder / "small.pt", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (folder / "small.pt").stat().st_size == before.st_size
    done = embed(shard, folder, tmp_path / "shard-00007", succeeds=False)
    assert done.returncode == 69
    assert "the weights are others than those that" in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.faults("weights changed while they are used", "a shard", "69; no output")
def test_weights_that_change_while_they_are_used_are_refused(model: Path, tmp_path: Path) -> None:
    path = Path(shutil.copyfile(model / "small.pt", tmp_path / "small.pt"))
    digest = json.loads((model / "model.json").read_text())["weights_sha256"]
    proof = WeightsProof(path)
    proof.check(digest, model / "model.json")
    facts = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(ModelError, match=r"small\.pt: the weights changed while they were used"):
        proof.check(digest, model / "model.json")
