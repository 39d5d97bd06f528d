"""ESM-1b and ESM-1v, whose positions are learned: from fair-esm's files and Hugging Face's, equal to both packages."""

from __future__ import annotations

import random
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from esm import Alphabet
from esm.model.esm1 import ProteinBertModel
from esm2_reference import (
    ALPHABET,
    SHARP_LOGITS,
    encode,
    packed_states,
    random_sequence,
    reference_states,
    relative_error,
)
from test_parity import RESIDUE_LIMIT
from transformers import EsmConfig, EsmModel

from virnucpro.data import VarlenCollator
from virnucpro.errors import ModelError, UsageError
from virnucpro.model.describe import describe_model
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.families import ESM_1B, ESM_1V
from virnucpro.model.registry import look_up
from virnucpro.model.weights import load_model, open_checkpoint
from virnucpro.pipeline.async_inference import AsyncInferenceRunner

LAYERS, DIM, HEADS = 3, 64, 4
PROTEINS = [random_sequence(length, random.Random(length)) for length in (1, 7, 70, 333, 1022)]


def sharp_esm1(*, norm_before: bool) -> ProteinBertModel:
    """A random model of fair-esm's class for ESM-1b and ESM-1v, with attention logits of standard deviation 3."""
    torch.manual_seed(3)
    sizes = Namespace(
        arch="roberta_large",
        layers=LAYERS,
        embed_dim=DIM,
        ffn_embed_dim=4 * DIM,
        attention_heads=HEADS,
        max_positions=1024,
        token_dropout=True,
        emb_layer_norm_before=norm_before,
    )
    model = ProteinBertModel(sizes, ALPHABET).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.copy_(torch.randn_like(parameter) * 0.1 + ("norm" in name and name.endswith("weight")))
    for table in (model.embed_tokens.weight, model.embed_positions.weight):
        table.copy_(torch.randn_like(table))
    for layer in model.layers:
        sharpen(model, layer.self_attn)
    return model


def sharpen(model: ProteinBertModel, attention: torch.nn.Module) -> None:
    seen: dict[str, torch.Tensor] = {}
    hook = attention.register_forward_pre_hook(
        lambda _module, _arguments, named: seen.update(x=named["query"]), with_kwargs=True
    )
    model(encode(PROTEINS[2])[None])
    hook.remove()
    queries, keys = (
        projection(seen["x"][:, 0]).view(-1, HEADS, DIM // HEADS).transpose(0, 1)
        for projection in (attention.q_proj, attention.k_proj)
    )
    factor = float((SHARP_LOGITS / (queries @ keys.mT * (DIM // HEADS) ** -0.5).std()).sqrt())
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight *= factor
        projection.bias *= factor


def save_as_published(model: ProteinBertModel, path: Path) -> Path:
    """The layout of the .pt files that fair-esm downloads for ESM-1b and ESM-1v."""
    arguments = Namespace(
        arch="roberta_large",
        encoder_layers=LAYERS,
        encoder_embed_dim=DIM,
        encoder_attention_heads=HEADS,
        max_positions=1024,
        token_dropout=True,
    )
    names = {
        key: f"encoder.{'' if key.startswith('lm_head') else 'sentence_encoder.'}{key}" for key in model.state_dict()
    }
    state = {names[key]: value for key, value in model.state_dict().items() if not key.startswith("contact_head")}
    torch.save({"args": arguments, "model": state}, path)
    return path


def hugging_face_model(*, norm_before: bool) -> EsmModel:
    torch.manual_seed(5)
    settings = EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=DIM,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * DIM,
        max_position_embeddings=1026,
        position_embedding_type="absolute",
        emb_layer_norm_before=norm_before,
        token_dropout=True,
        layer_norm_eps=1e-5,
    )
    model = EsmModel(settings, add_pooling_layer=False).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.mark.parametrize("norm_before", [True, False], ids=["ESM-1b", "ESM-1v"])
def test_published_files_give_fair_esms_vectors(norm_before: bool, tmp_path: Path) -> None:
    reference = sharp_esm1(norm_before=norm_before)
    path = save_as_published(reference, tmp_path / "esm1.pt")
    assert open_checkpoint(path).config.family is (ESM_1B if norm_before else ESM_1V)
    described = describe_model(path)
    assert (described.layers, described.embed_dim, described.heads) == (LAYERS, DIM, HEADS)
    assert described.family == ("ESM-1b" if norm_before else "ESM-1v")
    assert described.left_out == ["lm_head"]
    model = load_model(path, "fp32", "cpu")
    proteins = [*PROTEINS, "MK#LV##A", "#" * 5]
    layers = range(LAYERS + 1)
    for protein, states in zip(proteins, packed_states(model, proteins, layers), strict=True):
        expected = reference_states(reference, protein, layers)
        for layer in layers:
            assert relative_error(states[layer], expected[layer]) <= RESIDUE_LIMIT, (len(protein), layer)


@pytest.mark.parametrize("norm_before", [True, False], ids=["ESM-1b", "ESM-1v"])
@pytest.mark.parametrize("token_dropout", [True, False])
def test_a_loaded_model_gives_its_own_vectors(norm_before: bool, token_dropout: bool) -> None:
    reference = sharp_esm1(norm_before=norm_before)
    reference.args.token_dropout = token_dropout
    model = PackedEsm2.from_fair_esm(reference)
    assert (model.precision, model.config.family) == ("fp32", ESM_1B if norm_before else ESM_1V)
    proteins = [*PROTEINS, "MK#LV##A"]
    layers = range(LAYERS + 1)
    for protein, states in zip(proteins, packed_states(model, proteins, layers), strict=True):
        expected = reference_states(reference, protein, layers)
        for layer in layers:
            assert relative_error(states[layer], expected[layer]) <= RESIDUE_LIMIT, (len(protein), layer)


def test_the_specifications_runner_takes_a_loaded_model() -> None:
    reference = sharp_esm1(norm_before=True)
    runner = AsyncInferenceRunner(reference, torch.device("cpu"), monitor_interval=0)
    batches = VarlenCollator(None, 4096).pack({"id": str(row), "sequence": each} for row, each in enumerate(PROTEINS))
    found = {
        name: row for each in runner.run(batches) for name, row in zip(each.sequence_ids, each.embeddings, strict=True)
    }
    for row, protein in enumerate(PROTEINS):
        expected = reference_states(reference, protein, [LAYERS])[LAYERS][1:-1].mean(dim=0)
        assert relative_error(found[str(row)], expected) <= RESIDUE_LIMIT


def test_older_models_of_the_same_class_are_refused() -> None:
    """ESM-1 has another embedding and biases of its own in attention."""
    sizes = Namespace(
        arch="protein_bert_base",
        layers=1,
        embed_dim=32,
        ffn_embed_dim=128,
        attention_heads=2,
        max_positions=64,
        final_bias=True,
    )
    older = ProteinBertModel(sizes, Alphabet.from_architecture("protein_bert_base"))
    with pytest.raises(ModelError, match=r"a ProteinBertModel of fair-esm that is no ESM-2, ESM-1b or ESM-1v; give"):
        PackedEsm2.from_fair_esm(older)


@pytest.mark.parametrize("norm_before", [True, False], ids=["ESM-1b", "ESM-1v"])
def test_folders_give_transformers_vectors(norm_before: bool, tmp_path: Path) -> None:
    reference = hugging_face_model(norm_before=norm_before)
    reference.save_pretrained(tmp_path / "esm1")
    assert open_checkpoint(tmp_path / "esm1").config.family is (ESM_1B if norm_before else ESM_1V)
    model = load_model(tmp_path / "esm1", "fp32", "cpu")
    for protein, states in zip(PROTEINS, packed_states(model, PROTEINS, [0, LAYERS]), strict=True):
        hidden = reference(encode(protein)[None], output_hidden_states=True).hidden_states
        for layer in (0, LAYERS):
            assert relative_error(states[layer], hidden[layer][0]) <= RESIDUE_LIMIT, (len(protein), layer)


@pytest.mark.parametrize(("precision", "limit"), [("fp16", 3e-3), ("bf16", 2.5e-2)])
def test_positions_are_added_before_anything_is_rounded(precision: str, limit: float, tmp_path: Path) -> None:
    reference = sharp_esm1(norm_before=True)
    model = load_model(save_as_published(reference, tmp_path / "esm1.pt"), precision, "cpu")
    (states,) = packed_states(model, PROTEINS[-1:], [0])
    expected = reference_states(reference, PROTEINS[-1], [0])[0]
    assert torch.equal(states[0], expected.to(states[0].dtype)) or relative_error(states[0], expected) <= limit / 4


def test_beyond_the_learned_positions_is_refused(tmp_path: Path) -> None:
    model: PackedEsm2 = load_model(save_as_published(sharp_esm1(norm_before=True), tmp_path / "esm1.pt"), "fp32", "cpu")
    with pytest.raises(UsageError, match=r"has 1023 residues, .* positions for 1022; give --max_length 1022"):
        packed_states(model, ["A" * 1023], [LAYERS])


@pytest.mark.parametrize("key", ["embed_positions.weight", "emb_layer_norm_before.bias", "layers.1.fc1.weight"])
def test_an_incomplete_file_is_told(key: str, tmp_path: Path) -> None:
    content = torch.load(save_as_published(sharp_esm1(norm_before=True), tmp_path / "esm1.pt"), weights_only=False)
    del content["model"][f"encoder.sentence_encoder.{key}"]
    torch.save(content, tmp_path / "esm1.pt")
    with pytest.raises(ModelError, match=r"ESM-1b or ESM-1v|lacks"):
        open_checkpoint(tmp_path / "esm1.pt")


def test_official_names() -> None:
    assert look_up("esm1b_t33_650M_UR50S").family is ESM_1B
    assert {look_up(f"esm1v_t33_650M_UR90S_{member}").family for member in range(1, 6)} == {ESM_1V}
