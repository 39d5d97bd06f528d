"""A protein of titin's length in windows, through the whole pipeline and through Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from esm import ESM2
from launch import MODEL, PROJECT, Launch, launch
from model.esm2_reference import ALPHABET, reference_states

from virnucpro import embed as embed_here
from virnucpro.fasta import read_records
from virnucpro.model.weights import read_checkpoint

pytestmark = pytest.mark.one_engine
TITIN = 34_350
WINDOW, OVERLAP = 1022, 255
STARTS = [number * (TITIN - WINDOW) // 44 for number in range(45)]
OPTIONS = ("--long_sequences", "window", "--pooling", "mean,bos", "--per_residue", "--report", "false")


def proteins() -> dict[str, str]:
    """Made of the demo's: one of titin's length twice, one residue too long, and short ones between them."""
    joined = "".join(record.sequence for record in read_records(PROJECT / "assets" / "proteins.fasta"))
    long = (joined * (TITIN // len(joined) + 1))[:TITIN]
    return {
        "short": joined[100:150],
        "titin": long,
        "one_more": joined[7 : 7 + WINDOW + 1],
        "twin": long,
        "other": joined[200:260],
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    folder = tmp_path_factory.mktemp("windows")
    fasta = folder / "long.fasta"
    fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in proteins().items()))
    launched = launch(folder, "--input", fasta, "--model", MODEL, *OPTIONS)
    assert launched.code == 0, launched.output
    return launched


def vectors(path: Path, column: str) -> np.ndarray:
    return np.array(pq.read_table(path / "embeddings")[column].to_pylist(), np.float32)


def test_the_long_protein_is_the_mean_of_its_windows(run: Launch) -> None:
    assert all(after - before <= WINDOW - OVERLAP for before, after in pairwise(STARTS))
    assert STARTS[-1] + WINDOW == TITIN
    shape, state, _ = read_checkpoint(MODEL)
    reference = ESM2(shape.layers, shape.embed_dim, shape.heads, alphabet=ALPHABET).eval()
    reference.load_state_dict(state, strict=False)
    sequence = proteins()["titin"]
    stored = pq.read_table(run.results / "residues", filters=[("length", "=", TITIN)])
    assert stored.num_rows == 1
    kept = np.frombuffer(stored["residues"][0].as_py(), "<f2").reshape(TITIN, 320).astype(np.float32)
    for windows, begin, end in ((STARTS[:3], 0, STARTS[3]), (STARTS[-2:], STARTS[-3] + WINDOW, TITIN)):
        sums, counts = torch.zeros(TITIN, 320), torch.zeros(TITIN, 1)
        for start in windows:
            sums[start : start + WINDOW] += reference_states(reference, sequence[start : start + WINDOW], (6,))[6][1:-1]
            counts[start : start + WINDOW] += 1
        assert set(counts[begin:end].flatten().tolist()) == {1, 2}
        np.testing.assert_allclose(kept[begin:end], (sums / counts)[begin:end].numpy(), rtol=2e-3, atol=2e-3)
    found = vectors(run.results, "embedding_mean_layer6")
    np.testing.assert_allclose(found[1], kept.mean(axis=0), atol=1e-3)
    assert np.array_equal(found[1], found[3])


def test_rows_summary_and_proof_tell_of_it(run: Launch) -> None:
    rows = pq.read_table(run.results / "embeddings")
    assert rows["beyond_trained_length"].to_pylist() == 5 * [False]
    rows = rows.select(["id", "length", "truncated"]).to_pylist()
    assert [(row["id"], row["length"], row["truncated"]) for row in rows] == [
        ("short", 50, False), ("titin", TITIN, False), ("one_more", 1023, False), ("twin", TITIN, False),
        ("other", 60, False),
    ]  # fmt: skip
    summary = json.loads((run.results / "metrics" / "run_summary.json").read_text())
    assert summary["parameters"]["long_sequences"] == "window" and summary["parameters"]["window_overlap"] == OVERLAP
    tokens = (45 + 2) * (WINDOW + 2) + 52 + 62
    assert summary["tokens"] == tokens and (summary["embedded"], summary["duplicate"]) == (4, 1)
    shards = pq.read_table(run.results / "metrics" / "shards.parquet")
    assert sum(shards["tokens"].to_pylist()) == tokens
    command = [sys.executable, PROJECT / "bin" / "verify.py", run.results]
    proof = subprocess.run(command, capture_output=True, text=True, check=False)
    assert proof.returncode == 0 and "5 records, 5 vectors" in proof.stdout, proof.stderr


def test_it_is_reused_by_the_same_windows_alone(run: Launch, tmp_path: Path) -> None:
    options = ("--input", run.folder / "long.fasta", "--model", MODEL, "--reuse", run.results, *OPTIONS)
    again = launch(tmp_path / "same", *options)
    assert again.code == 0, again.output
    assert set(again.statuses()) == {"DESCRIBE_MODEL", "SPLIT_FASTA", "MERGE_EMBEDDINGS"}
    for column in ("embedding_mean_layer6", "embedding_bos_layer6"):
        assert np.array_equal(vectors(again.results, column), vectors(run.results, column))


def test_python_gives_the_same_bits(run: Launch) -> None:
    table = embed_here(proteins(), model=MODEL, device="cpu", long_sequences="window", pooling=("mean", "bos"))
    for column in ("embedding_mean_layer6", "embedding_bos_layer6"):
        assert np.array_equal(np.array(table[column].to_pylist(), np.float32), vectors(run.results, column))


@pytest.mark.parametrize("door", ["pipeline", "command"])
def test_no_overlap_is_an_overlap_too_by_every_door(tmp_path: Path, door: str) -> None:
    demo = [record.sequence for record in read_records(PROJECT / "assets" / "proteins.fasta")][20:24]
    fasta = tmp_path / "few.fasta"
    fasta.write_text("".join(f">{place}\n{sequence}\n" for place, sequence in enumerate(demo)))
    options = ("--model", MODEL, "--max_length", "41", "--long_sequences", "window", "--window_overlap", "0")
    if door == "pipeline":
        launched = launch(tmp_path, "--input", fasta, *options, "--report", "false")
        assert launched.code == 0, launched.output
        results = launched.results
    else:
        results = tmp_path / "results"
        command = [
            sys.executable,
            "-m",
            "virnucpro",
            "embed",
            fasta,
            "-o",
            results,
            *options,
            "--gpus=0",
            "--no-report",
        ]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT / "bin")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
    read = {"model": MODEL, "device": "cpu", "max_length": 41, "long_sequences": "window"}
    here, other = (np.array(embed_here(demo, window_overlap=n, **read)["embedding"].to_pylist()) for n in (0, None))
    found = vectors(results, "embedding")
    assert np.array_equal(found, here.astype(np.float32)) and not np.allclose(found, other, atol=1e-3)
    assert json.loads((results / "metrics" / "run_summary.json").read_text())["parameters"]["window_overlap"] == 0
