"""Models as users bring them, through the real pipeline: the vectors are those of the package that wrote the model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from launch import PROJECT, launch
from torch import Tensor

sys.path.append(str(PROJECT / "tests" / "model"))

from esm2_reference import (
    encode,
    hugging_face_state,
    reference_states,
    relative_error,
    save_hugging_face,
    sharp_esm2,
)
from test_parity import RESIDUE_LIMIT

pytestmark = pytest.mark.one_engine

PROTEINS = {"short": "G", "middle": "MKTAYIAKQRQISFVKSHFSRQ", "long": "ACDEFGHIKLMNPQRSTVWY" * 5}


@pytest.fixture
def proteins(tmp_path: Path) -> Path:
    path = tmp_path / "few.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in PROTEINS.items()))
    return path


def vectors(results: Path) -> tuple[dict[str, Tensor], str]:
    """id -> vector, and the name of the model in the metadata."""
    table = pq.read_table(results / "embeddings")
    origin = json.loads(pq.read_schema(results / "embeddings" / "part-00000.parquet").metadata[b"virnucpro"])
    rows = zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True)
    return {name: torch.tensor(vector) for name, vector in rows}, origin["model"]


def mean_of_residues(hidden: Tensor) -> Tensor:
    return hidden[1:-1].mean(0)


def test_the_weights_of_a_classifier_of_transformers(tmp_path: Path, proteins: Path) -> None:
    from transformers import EsmForTokenClassification, EsmModel

    sharp = save_hugging_face(sharp_esm2(layers=2, dim=32, heads=2), tmp_path / "sharp")
    saved = tmp_path / "fine_tuned"
    EsmForTokenClassification.from_pretrained(sharp).save_pretrained(saved)
    run = launch(tmp_path, "--input", proteins, "--model", saved / "model.safetensors", "--report", "false")
    assert run.code == 0, run.output
    found, name = vectors(run.results)
    assert name == "fine_tuned"
    peer = EsmModel.from_pretrained(saved, add_pooling_layer=False, attn_implementation="eager").eval()
    for identifier, sequence in PROTEINS.items():
        with torch.no_grad():
            hidden = peer(encode(sequence)[None]).last_hidden_state[0]
        assert relative_error(found[identifier], mean_of_residues(hidden)) <= RESIDUE_LIMIT


@pytest.mark.parametrize("form", ["trainer", "hub cache"])
def test_a_trainers_file_and_a_hub_cache(form: str, tmp_path: Path, proteins: Path) -> None:
    model = sharp_esm2(layers=2, dim=32, heads=2)
    if form == "trainer":
        path = tmp_path / "epoch=3-step=100.ckpt"
        weights = {f"model.{key}": value for key, value in model.state_dict().items()}
        torch.save({"state_dict": weights, "hyper_parameters": {"folder": tmp_path}, "epoch": 3}, path)
    else:
        path = tmp_path / "models--lab--esm2_tiny"
        made, snapshot = save_hugging_face(model, path / "blobs"), path / "snapshots" / "abc123"
        snapshot.mkdir(parents=True)
        for file in made.iterdir():
            (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / file.name)
    run = launch(tmp_path, "--input", proteins, "--model", path, "--report", "false")
    assert run.code == 0, run.output
    found, name = vectors(run.results)
    assert name == ("epoch=3-step=100" if form == "trainer" else "lab/esm2_tiny")
    for identifier, sequence in PROTEINS.items():
        expected = mean_of_residues(reference_states(model, sequence, (2,))[2])
        assert relative_error(found[identifier], expected) <= RESIDUE_LIMIT


def test_an_adapter(tmp_path: Path, proteins: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "base"}'
    )
    weights = hugging_face_state(sharp_esm2(layers=2, dim=32, heads=2))
    torch.save(dict(list(weights.items())[:2]), tmp_path / "adapter" / "adapter_model.bin")
    run = launch(tmp_path, "--input", proteins, "--model", tmp_path / "adapter")
    assert run.code == 69, run.output
    assert "No results: fetch_model.py: error: " in run.last_lines
    assert "a PEFT adapter (LORA, for base), not a whole model; merge it into its base first" in run.last_lines
    assert run.published() == []
