"""What the real transformers writes, with any head on top, gives the vectors that transformers computes from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from esm import ESM2
from esm2_reference import ALPHABET, packed_states, relative_error, save_hugging_face, sharp_esm2
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_parity import RESIDUE_LIMIT
from torch import Tensor
from transformers import (
    EsmConfig,
    EsmForMaskedLM,
    EsmForSequenceClassification,
    EsmForTokenClassification,
    EsmModel,
    PreTrainedModel,
)

from virnucpro.errors import ModelError
from virnucpro.model.weights import load_model, open_checkpoint, weight_files

PROTEINS = ["MKTAYIAKQRQISFVKSHFSRQ", "G", "ACDEFGHIKLMNPQRSTVWY" * 5]
LEFT_OUT = {
    EsmModel: ("contact_head", "pooler"),
    EsmForMaskedLM: ("contact_head", "lm_head"),
    EsmForSequenceClassification: ("classifier", "contact_head"),
    EsmForTokenClassification: ("classifier", "contact_head"),
}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def sharp_model(kind: type[PreTrainedModel], tmp_path: Path) -> PreTrainedModel:
    """A model of transformers whose attention is sharp."""
    if not (tmp_path / "sharp").exists():
        save_hugging_face(sharp_esm2(layers=2, dim=32, heads=2), tmp_path / "sharp")
    return kind.from_pretrained(tmp_path / "sharp", dtype=torch.float32)


def fresh_model(kind: type[PreTrainedModel], **changes: object) -> PreTrainedModel:
    """A model of transformers made from settings alone, with biases and norms that are not zero and one."""
    torch.manual_seed(1)
    settings: dict[str, Any] = {
        "vocab_size": 33,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "position_embedding_type": "rotary",
        "layer_norm_eps": 1e-5,
        "emb_layer_norm_before": False,
        "token_dropout": True,
        "mask_token_id": 32,
        "pad_token_id": 1,
    }
    model = kind(EsmConfig(**(settings | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return model


def assert_as_transformers_reads_it(folder: Path, path: Path | None = None) -> None:
    """``path`` gives what transformers computes in fp32 from ``folder``, in each layer."""
    peer = EsmModel.from_pretrained(
        folder, add_pooling_layer=False, attn_implementation="eager", dtype=torch.float32
    ).eval()
    model = load_model(path or folder, "fp32", "cpu")
    for protein, states in zip(PROTEINS, packed_states(model, PROTEINS, (0, 1, 2)), strict=True):
        ids = torch.tensor([[0, *map(ALPHABET.get_idx, protein), 2]])
        with torch.no_grad():
            hidden = peer(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
        for layer in (0, 1, 2):
            assert relative_error(states[layer], hidden[layer][0]) <= RESIDUE_LIMIT


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", LEFT_OUT, ids=lambda kind: kind.__name__)
def test_save_pretrained(kind: type[PreTrainedModel], dtype: torch.dtype, tmp_path: Path) -> None:
    sharp_model(kind, tmp_path).to(dtype).save_pretrained(tmp_path / "saved")
    checkpoint = open_checkpoint(tmp_path / "saved")
    assert checkpoint.left_out == LEFT_OUT[kind]
    assert {value.dtype for value in checkpoint.state.values()} == {dtype}
    assert checkpoint.state.keys() == checkpoint.config.shapes().keys()
    assert_as_transformers_reads_it(tmp_path / "saved")


@pytest.mark.parametrize("kind", LEFT_OUT, ids=lambda kind: kind.__name__)
def test_a_model_made_from_settings(kind: type[PreTrainedModel], tmp_path: Path) -> None:
    fresh_model(kind).save_pretrained(tmp_path / "saved")
    assert any(key.endswith("LayerNorm.gamma") for key in load_file(tmp_path / "saved" / "model.safetensors"))
    assert open_checkpoint(tmp_path / "saved").left_out == LEFT_OUT[kind]
    assert_as_transformers_reads_it(tmp_path / "saved")


def test_token_dropout_is_what_the_settings_say(tmp_path: Path) -> None:
    fresh_model(EsmModel, token_dropout=False).save_pretrained(tmp_path / "saved")
    assert not open_checkpoint(tmp_path / "saved").config.token_dropout
    assert_as_transformers_reads_it(tmp_path / "saved")


def test_shards(tmp_path: Path) -> None:
    sharp_model(EsmForMaskedLM, tmp_path).save_pretrained(tmp_path / "saved", max_shard_size="40KB")
    parts = weight_files(tmp_path / "saved")
    assert len(parts) > 1
    assert_as_transformers_reads_it(tmp_path / "saved")
    for path in (parts[0], parts[-1], tmp_path / "saved" / "model.safetensors.index.json"):
        assert weight_files(path) == parts
        assert open_checkpoint(path).config.name == "saved"
        assert_as_transformers_reads_it(tmp_path / "saved", path)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bin(dtype: torch.dtype, tmp_path: Path) -> None:
    """``pytorch_model.bin`` holds what the module's state_dict() does."""
    model = sharp_model(EsmForTokenClassification, tmp_path).to(dtype)
    model.config.save_pretrained(tmp_path / "saved")
    torch.save(model.state_dict(), tmp_path / "saved" / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path / "saved")
    assert checkpoint.left_out == ("classifier", "contact_head")
    assert {value.dtype for value in checkpoint.state.values()} == {dtype}
    assert_as_transformers_reads_it(tmp_path / "saved")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    sharp_model(EsmForMaskedLM, tmp_path).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def rewrite(folder: Path, changes: dict[str, Tensor | None]) -> None:
    state = load_file(folder / "model.safetensors") | changes
    save_file({key: value for key, value in state.items() if value is not None}, folder / "model.safetensors")


def test_heads_of_any_name_are_left_out_and_named(saved: Path) -> None:
    extra = {
        "head.layers.0.self_attn.in_proj_weight": torch.ones(3),
        "encoder_projection.weight": torch.ones(3),
        "norm.num_batches_tracked": torch.tensor(7),
        "temperature": torch.ones(1),
        "decoder.block.0.layer.0.weight": torch.ones(3),
        "esm.pooler.dense.weight": torch.ones(3),
    }
    rewrite(saved, dict(extra))
    heads = ("contact_head", "decoder", "encoder_projection", "head", "lm_head", "norm", "pooler", "temperature")
    assert open_checkpoint(saved).left_out == heads
    assert_as_transformers_reads_it(saved)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"esm.encoder.layer.1.output.dense.bias": None}, r"lacks layers\.1\.fc2\.bias; the file is not whole"),
        ({"esm.encoder.layer.1.LayerNorm.bias": None}, r"lacks layers\.1\.final_layer_norm\.bias; "),
        ({"esm.encoder.layer.2.output.dense.bias": torch.ones(32)}, r"beyond an ESM-2 encoder layers\.2\.fc2\.bias; "),
        (
            {"esm.encoder.layer.0.output.adapters.mine.down.weight": torch.ones(3)},
            r"beyond an ESM-2 encoder encoder\.layer\.0\.output\.adapters\.mine\.down\.weight; "
            "without those its vectors would be others",
        ),
        ({"esm.adapter.weight": torch.ones(3)}, r"beyond an ESM-2 encoder adapter\.weight; "),
        ({"esm.embeddings.layer_norm.weight": torch.ones(32)}, r"beyond an ESM-2 encoder emb_layer_norm_before\."),
        ({"esm.encoder.layer.0.fc3.gamma": torch.ones(32)}, r"beyond an ESM-2 encoder encoder\.layer\.0\.fc3\.gamma"),
        ({"esm.encoder.layer.0.LayerNorm.gamma": torch.ones(32)}, r"'layers\.0\.final_layer_norm\.weight' occurs"),
        ({"encoder.layer.0.LayerNorm.weight": torch.ones(32)}, r"'encoder\.layer\.0\.LayerNorm\.weight' occurs twice"),
        ({"esm.rotary_embeddings.inv_freq": torch.ones(8)}, r"inv_freq' occurs twice"),
    ],
)
def test_what_is_inside_the_encoder_is_never_left_out(
    saved: Path, changes: dict[str, Tensor | None], complaint: str
) -> None:
    rewrite(saved, changes)
    with pytest.raises(ModelError, match=complaint):
        open_checkpoint(saved)


def test_frequencies_that_are_not_in_the_file(saved: Path) -> None:
    rewrite(saved, {"esm.encoder.layer.*.attention.self.rotary_embeddings.inv_freq": None})
    open_checkpoint(saved)
    settings = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(settings | {"rope_theta": 500.0}))
    with pytest.raises(ModelError, match=r"no rotary frequencies, and config\.json asks for others"):
        open_checkpoint(saved)


def test_a_lone_file_of_weights(saved: Path, tmp_path: Path) -> None:
    lone = (saved / "model.safetensors").rename(tmp_path / "lone.safetensors")
    checkpoint = open_checkpoint(lone)
    assert (checkpoint.config.name, checkpoint.config.layers, checkpoint.config.embed_dim) == ("lone", 2, 32)
    assert (checkpoint.config.heads, checkpoint.config.token_dropout) == (2, True)
    assert checkpoint.files == (lone,)
    lone.rename(saved / "model.safetensors")
    expected = open_checkpoint(saved).state
    assert all(torch.equal(value, expected[key]) for key, value in checkpoint.state.items())


def test_a_lone_file_whose_sizes_cannot_be_known(saved: Path, tmp_path: Path) -> None:
    rewrite(saved, {"esm.encoder.layer.*.attention.self.rotary_embeddings.inv_freq": None})
    lone = (saved / "model.safetensors").rename(tmp_path / "lone.safetensors")
    with pytest.raises(ModelError, match=r"number of attention heads \(2 layers of width 32, no .*config\.json beside"):
        open_checkpoint(lone)
    with safe_open(lone, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    save_file(state | {"esm.embeddings.position_embeddings.weight": torch.ones(1026, 32)}, lone)
    with pytest.raises(ModelError, match=r"may be an ESM-1b, or an ESM-2 with idle positions; put its config"):
        open_checkpoint(lone)


def test_our_reference_and_transformers_meet(saved: Path) -> None:
    """The sharp model went through transformers unharmed, so that the tests above compare sharp attention."""
    reference: ESM2 = sharp_esm2(layers=2, dim=32, heads=2)
    state = open_checkpoint(saved).state
    assert all(torch.equal(value, state[key]) for key, value in reference.state_dict().items() if key in state)
