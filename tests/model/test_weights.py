"""Each layout of a checkpoint reads as the same model; each fault has its class and says what is wrong."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from esm import ESM2
from esm2_reference import packed_states, save_fair_esm, save_hugging_face, sharp_esm2

from virnucpro.errors import ExitCode, InputMissingError, ModelError, VirnucproError
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.parameters import inv_freq_key, trained_inv_freq
from virnucpro.model.weights import load_model, read_checkpoint, weight_files

PROTEINS = ["MKTAYIAKQRQISFVKSHFSRQ", "G", "ACDEFGHIKLMNPQRSTVWY" * 5]
HUGGING_FACE_LAYOUTS = ("safetensors", "bin", "sharded-safetensors", "sharded-bin")


@pytest.fixture(scope="module")
def model() -> ESM2:
    return sharp_esm2(layers=2, dim=32, heads=2)


def assert_same_model(path: Path, model: ESM2) -> None:
    ours = packed_states(load_model(path, "fp32", "cpu"), PROTEINS, (0, 1, 2))
    expected = packed_states(PackedEsm2.from_fair_esm(model), PROTEINS, (0, 1, 2))
    for states, reference in zip(ours, expected, strict=True):
        assert all(torch.equal(states[layer], reference[layer]) for layer in (0, 1, 2))


def save_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("layout", ["cfg", "args"])
def test_fair_esm_layouts(tmp_path: Path, model: ESM2, layout: str) -> None:
    path = save_fair_esm(model, tmp_path / "tiny.pt", layout)
    config, state, source = read_checkpoint(path)
    assert (config.name, config.layers, config.embed_dim, config.heads) == ("tiny", 2, 32, 2)
    assert config.token_dropout and source == "fair-esm"
    assert {key: tuple(value.shape) for key, value in state.items()} == config.shapes()
    assert_same_model(path, model)


@pytest.mark.parametrize("layout", HUGGING_FACE_LAYOUTS)
@pytest.mark.parametrize("prefix", ["esm.", ""])
def test_hugging_face_layouts(tmp_path: Path, model: ESM2, layout: str, prefix: str) -> None:
    folder = save_hugging_face(model, tmp_path / "tiny", layout, prefix)
    config, state, source = read_checkpoint(folder)
    assert (config.name, config.layers, config.embed_dim, config.heads) == ("tiny", 2, 32, 2)
    assert source == "huggingface" and state.keys() == config.shapes().keys()
    assert len(weight_files(folder)) == (2 if layout.startswith("sharded") else 1)
    assert_same_model(folder, model)


def test_name_follows_the_path_as_given(tmp_path: Path, model: ESM2, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_hugging_face(model, tmp_path / "3f7a" / "snapshot")
    (tmp_path / "my_model").symlink_to(folder)
    assert read_checkpoint(tmp_path / "my_model")[0].name == "my_model"
    monkeypatch.chdir(folder)
    assert read_checkpoint(Path("."))[0].name == "snapshot"


def test_safetensors_come_before_pickles(tmp_path: Path, model: ESM2) -> None:
    folder = save_hugging_face(model, tmp_path / "tiny")
    save_bytes(folder / "pytorch_model.bin", b"never read")
    assert weight_files(folder) == [folder / "model.safetensors"]
    assert_same_model(folder, model)


def test_transformers_own_layouts(tmp_path: Path, model: ESM2) -> None:
    from transformers import EsmForMaskedLM, EsmForSequenceClassification, EsmModel

    folder = save_hugging_face(model, tmp_path / "tiny")
    for peer in (EsmModel, EsmForMaskedLM, EsmForSequenceClassification):
        peer.from_pretrained(folder).save_pretrained(tmp_path / peer.__name__)
        assert_same_model(tmp_path / peer.__name__, model)


def test_checkpoint_in_half_precision_is_read_as_it_is(tmp_path: Path, model: ESM2) -> None:
    halved = {key: value.half() for key, value in model.state_dict().items()}
    config, state, _ = read_checkpoint(save_fair_esm(model, tmp_path / "half.pt", **halved))
    assert all(value.dtype == torch.float16 for value in state.values())
    assert torch.equal(state[inv_freq_key(0)].float(), trained_inv_freq(config.head_dim))


def test_old_zipless_files_are_read(tmp_path: Path, model: ESM2) -> None:
    content = torch.load(save_fair_esm(model, tmp_path / "new.pt"), weights_only=False)
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert_same_model(tmp_path / "old.pt", model)


def test_checkpoint_without_any_frequencies_gets_the_trained_ones(tmp_path: Path, model: ESM2) -> None:
    path = save_fair_esm(model, tmp_path / "bare.pt", **{inv_freq_key(0): None, inv_freq_key(1): None})
    assert_same_model(path, model)


def test_frequencies_of_the_checkpoint_are_kept(tmp_path: Path, model: ESM2) -> None:
    changed = {inv_freq_key(index): trained_inv_freq(16) * (index + 2) for index in range(2)}
    _, state, _ = read_checkpoint(save_fair_esm(model, tmp_path / "own.pt", **changed))
    assert all(torch.equal(state[key], value) for key, value in changed.items())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"layers.1.fc1.weight": None}, r"lacks layers\.1\.fc1\.weight"),
        ({inv_freq_key(1): None}, r"lacks layers\.1\.self_attn\.rot_emb\.inv_freq"),
        ({"layers.2.fc1.bias": torch.zeros(3)}, r"beyond an ESM-2 encoder layers\.2\.fc1\.bias"),
        ({"embed_positions.weight": torch.zeros(3)}, r"beyond .* embed_positions\.weight"),
        ({"embed_tokens.weight": torch.zeros(35, 32)}, r"another shape embed_tokens\.weight"),
        ({inv_freq_key(0): torch.zeros(4)}, r"another shape .*inv_freq"),
        ({"layers.0.fc1.bias": torch.zeros(128, dtype=torch.int8)}, r"not a tensor of floating-point"),
        ({"layers.0.fc1.bias": 3}, r"not a tensor of floating-point"),
    ],
)
def test_each_wrong_key_is_named(tmp_path: Path, model: ESM2, changes: dict[str, object], complaint: str) -> None:
    path = save_fair_esm(model, tmp_path / "odd.pt", **changes)
    with pytest.raises(ModelError, match=rf"odd\.pt.*{complaint}"):
        read_checkpoint(path)


def test_many_wrong_keys_are_counted(tmp_path: Path, model: ESM2) -> None:
    path = save_fair_esm(model, tmp_path / "odd.pt", **{key: None for key in model.state_dict() if "layers.1" in key})
    with pytest.raises(ModelError, match=r"lacks (layers\.1\S+, ){2}layers\.1\S+ and 14 more"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content", [{}, [], {"model": 3}, {"model": {}}, {"cfg": {"model": {}}, "model": {}}, {"cfg": 3, "model": {}}]
)
def test_pickles_that_are_no_checkpoint(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ModelError, match=r"odd\.pt"):
        read_checkpoint(tmp_path / "odd.pt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "bert"),
        ("vocab_size", 31),
        ("position_embedding_type", "absolute"),
        ("emb_layer_norm_before", True),
        ("hidden_act", "relu"),
        ("layer_norm_eps", 1e-12),
        ("num_hidden_layers", "two"),
        ("num_attention_heads", 5),
    ],
)
def test_folders_of_other_architectures(tmp_path: Path, model: ESM2, key: str, value: object) -> None:
    folder = save_hugging_face(model, tmp_path / "tiny")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {key: value}))
    with pytest.raises(ModelError, match=r"tiny"):
        read_checkpoint(folder)


def test_a_key_that_occurs_twice(tmp_path: Path, model: ESM2) -> None:
    folder = save_hugging_face(model, tmp_path / "tiny", "bin")
    content = torch.load(folder / "pytorch_model.bin", weights_only=True)
    content["encoder.emb_layer_norm_after.bias"] = torch.zeros(32)
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"emb_layer_norm_after\.bias' occurs twice"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
        (lambda f: (f / "model-00002-of-00002.safetensors").unlink(), "names model-00002-of-00002.safetensors"),
        (lambda f: (f / "model.safetensors.index.json").unlink(), "no model.safetensors or pytorch_model.bin"),
        (lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {}}'), "no weight_map"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}'),
            "outside its folder",
        ),
    ],
)
def test_folders_with_a_part_missing(
    tmp_path: Path, model: ESM2, spoil: Callable[[Path], None], complaint: str
) -> None:
    folder = save_hugging_face(model, tmp_path / "tiny", "sharded-safetensors")
    spoil(folder)
    with pytest.raises(ModelError, match=complaint):
        read_checkpoint(folder)


class Payload:
    """Unpickling this would make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["fair-esm", "plain pickle", "folder"])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, model: ESM2, form: str) -> None:
    mark = tmp_path / "ran"
    if form == "fair-esm":
        path = tmp_path / "bad.pt"
        torch.save({"cfg": Payload(mark), "model": {}}, path)
    elif form == "plain pickle":
        path = save_bytes(tmp_path / "bad.pt", pickle.dumps(Payload(mark)))
    else:
        path = save_hugging_face(model, tmp_path / "bad", "bin")
        torch.save(Payload(mark), path / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    assert not mark.exists()
    message = str(caught.value)
    assert "\n" not in message and "weights_only" not in message
    assert "do not trust" in message if form != "plain pickle" else "never run" in message
    assert caught.value.exit_code == ExitCode.MODEL_UNAVAILABLE


@pytest.mark.parametrize("layout", ["fair-esm", "bin", "safetensors"])
def test_files_cut_anywhere_are_one_line_errors(tmp_path: Path, model: ESM2, layout: str) -> None:
    if layout == "fair-esm":
        path = file = save_fair_esm(model, tmp_path / "tiny.pt")
    else:
        path = save_hugging_face(model, tmp_path / "tiny", layout)
        (file,) = weight_files(path)
    whole = file.read_bytes()
    cuts = [*range(0, 9), 20, 100, 1000, len(whole) // 2, len(whole) - 1000, len(whole) - 23, len(whole) - 1]
    for cut in cuts:
        file.write_bytes(whole[:cut])
        with pytest.raises(ModelError) as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value) and str(file.name) in str(caught.value), cut


def test_flipped_bytes_never_raise_anything_else(tmp_path: Path, model: ESM2) -> None:
    file = save_fair_esm(model, tmp_path / "tiny.pt")
    whole = file.read_bytes()
    refused = 0
    for position in range(30, 3000, 61):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            read_checkpoint(file)
        except VirnucproError:
            refused += 1
    assert refused > 10


def test_missing_paths(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path / "none" / "none"):
        with pytest.raises(InputMissingError, match=r"none.*check the path"):
            read_checkpoint(path)
        with pytest.raises(InputMissingError):
            weight_files(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path, model: ESM2) -> None:
    path = save_fair_esm(model, tmp_path / "tiny.pt")
    path.chmod(0)
    with pytest.raises(InputMissingError, match="Permission denied"):
        read_checkpoint(path)


def test_loaded_model_does_not_need_its_file(tmp_path: Path, model: ESM2) -> None:
    folder = save_hugging_face(model, tmp_path / "tiny")
    loaded = load_model(folder, "fp32", "cpu")
    (before,) = packed_states(loaded, PROTEINS[:1], (2,))
    for file in weight_files(folder):
        file.write_bytes(bytes(file.stat().st_size))
    shutil.rmtree(folder)
    (after,) = packed_states(loaded, PROTEINS[:1], (2,))
    assert torch.equal(before[2], after[2])
