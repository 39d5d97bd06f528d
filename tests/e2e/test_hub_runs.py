"""Repositories of the hub through the whole pipeline, from a hub on loopback: any class, a pinned revision, BERT."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from launch import PROJECT, launch
from model.esm2_reference import hugging_face_config, save_hugging_face, sharp_esm2
from model.hub_server import COMMIT, Hub, serve

from virnucpro import Embedder

NAME = "Synthyra/FastESM2_tiny"
OTHER_COMMIT = "f" * 40
PROTEINS = {"a": "MKVLAT", "b": "MKV", "c": "MKTAYIAKQRQISFVKSHFSRQ"}
MODEL = sharp_esm2(layers=2, dim=32, heads=2)
FAST_ESM = {
    "model_type": "fast_esm",
    "architectures": ["FastEsmForMaskedLM"],
    "auto_map": {"AutoModel": "modeling_fastesm.FastEsmModel"},
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    source = save_hugging_face(MODEL, tmp_path / "source", "safetensors")
    other = save_hugging_face(sharp_esm2(layers=3, dim=32, heads=2), tmp_path / "other", "safetensors")
    (tmp_path / "in.fasta").write_text("".join(f">{name}\n{text}\n" for name, text in PROTEINS.items()))
    with serve(NAME, source, {"modeling_fastesm.py": b"raise SystemExit(3)"}) as running:
        running.files["config.json"] = json.dumps(hugging_face_config(MODEL, **FAST_ESM)).encode()
        running.others[OTHER_COMMIT] = {file.name: file.read_bytes() for file in other.iterdir()}
        running.revisions["three-layers"] = OTHER_COMMIT
        yield running


def online(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0"}


def arguments(*more: str) -> list[str]:
    return ["--input", "in.fasta", "--model", NAME, "--model_cache", "models", "--report", "false", *more]


def origin(results: Path) -> dict[str, object]:
    metadata = pq.read_schema(results / "embeddings" / "part-00000.parquet").metadata[b"virnucpro"]
    return dict(json.loads(metadata))


def vectors(results: Path) -> list[list[float]]:
    found: list[list[float]] = pq.read_table(results / "embeddings")["embedding"].to_pylist()
    return found


@pytest.mark.one_engine
def test_a_repository_is_fetched_once_and_its_commit_recorded(tmp_path: Path, hub: Hub) -> None:
    first = launch(tmp_path, *arguments(), environment=online(hub))
    assert first.code == 0, first.output
    assert hub.fetched() == ["config.json", "model.safetensors"]
    assert (origin(first.results)["model"], origin(first.results)["model_revision"]) == (NAME, COMMIT)
    described = described_in(tmp_path)
    assert (described["name"], described["revision"], described["layers"]) == (NAME, COMMIT, 2)
    assert f"--model={NAME} " in (first.results / "ro-crate-metadata.json").read_text()

    # Offline, with -resume: a model kept is the model fetched.
    again = launch(tmp_path, *arguments("-resume"))
    assert again.code == 0, again.output
    assert "FETCH_MODEL" not in again.statuses()
    assert set().union(*again.statuses().values()) == {"CACHED"}

    # From Python and as one command, offline, out of the same folder of models: the same bits.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(PROJECT / "bin")}
    table = Embedder(NAME, model_cache=tmp_path / "models", device="cpu").embed(PROTEINS)
    assert table["embedding"].to_pylist() == vectors(first.results)
    command = [sys.executable, "-m", "virnucpro", "embed", "in.fasta", "-o", "out", "--no-report", "--gpus", "0"]
    command += ["--model", NAME, "--model-cache", "models", "--model-revision", COMMIT]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    assert vectors(tmp_path / "out") == vectors(first.results)
    assert origin(tmp_path / "out")["model_revision"] == COMMIT


def described_in(folder: Path) -> dict[str, object]:
    """What DESCRIBE_MODEL found."""
    found = [json.loads(path.read_text()) for path in folder.glob("work/*/*/model.json") if not path.is_symlink()]
    assert found and all(each == found[0] for each in found)
    return dict(found[0])


@pytest.mark.one_engine
def test_a_pinned_revision(tmp_path: Path, hub: Hub) -> None:
    run = launch(tmp_path, *arguments("--model_revision", "three-layers"), environment=online(hub))
    assert run.code == 0, run.output
    assert origin(run.results)["model_revision"] == OTHER_COMMIT
    assert origin(run.results)["layers"] == [3]


@pytest.mark.one_engine
def test_another_family_is_refused_by_name_before_its_weights(tmp_path: Path, hub: Hub) -> None:
    hub.files["config.json"] = json.dumps({"model_type": "bert", "vocab_size": 30}).encode()
    run = launch(tmp_path, *arguments(), environment=online(hub))
    assert run.code == 69, run.output
    assert f"No results: fetch_model.py: error: {NAME}: a model of another family, BERT (ProtBert" in run.last_lines
    assert hub.fetched() == ["config.json"]


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--model", "none/here"], 69, "no such file or folder, and none/here cannot be had from"),
        (["--model", "none/of/these"], 66, "--model none/of/these: no such file or folder; check the path"),
        (["--model", "esm2_t6_8M_UR50D", "--model_revision", "v1"], 2, "esm2_t6_8M_UR50D is no repository ORG/NAME"),
        (["--model", "source", "--model_revision", "v1"], 2, "source is no repository ORG/NAME of the hub"),
    ],
)
def test_what_is_no_repository(options: list[str], code: int, told: str, tmp_path: Path, hub: Hub) -> None:
    run = launch(tmp_path, *arguments(*options), environment=online(hub))
    assert run.code == code, run.output
    assert told in run.last_lines
    assert hub.fetched() == []
