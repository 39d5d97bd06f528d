"""State dicts as trainers and hand-made loops leave them give the vectors of the fair-esm model in them."""

from __future__ import annotations

import collections
import datetime
import pathlib
import sys
import types
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from esm import ESM2
from esm2_reference import hugging_face_state, packed_states, reference_states, relative_error, sharp_esm2
from safetensors.torch import save_file
from test_parity import RESIDUE_LIMIT
from torch import Tensor

from virnucpro.errors import ModelError
from virnucpro.model.parameters import inv_freq_key
from virnucpro.model.weights import load_model, open_checkpoint

PROTEINS = ["MKTAYIAKQRQISFVKSHFSRQ", "G", "ACDEFGHIKLMNPQRSTVWY" * 5]
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> ESM2:
    return sharp_esm2(layers=2, dim=32, heads=2)


@pytest.fixture
def state(model: ESM2) -> State:
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_parity(path: Path, model: ESM2) -> None:
    ours = packed_states(load_model(path, "fp32", "cpu"), PROTEINS, (0, 1, 2))
    for protein, states in zip(PROTEINS, ours, strict=True):
        expected = reference_states(model, protein, (0, 1, 2))
        assert all(relative_error(states[layer], expected[layer]) <= RESIDUE_LIMIT for layer in (0, 1, 2))


def wrapped(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def compiled_layers(state: State) -> State:
    return {key.replace("layers.1.", "layers.1._orig_mod."): value for key, value in state.items()}


def with_head(state: State, prefix: str) -> State:
    encoder = {key: value for key, value in state.items() if not key.startswith(("lm_head", "contact_head"))}
    return wrapped(encoder, prefix) | {"model.mlp.0.weight": torch.ones(3, 3), "loss.weight": torch.ones(2)}


@pytest.mark.parametrize(
    ("form", "left_out"),
    [
        (dict, ("contact_head", "lm_head")),
        (collections.OrderedDict, ("contact_head", "lm_head")),
        (lambda s: wrapped(s, "module."), ("contact_head", "lm_head")),
        (lambda s: wrapped(s, "_orig_mod."), ("contact_head", "lm_head")),
        (lambda s: wrapped(s, "module._orig_mod."), ("contact_head", "lm_head")),
        (lambda s: wrapped(s, "base_model.model."), ("contact_head", "lm_head")),
        (lambda s: wrapped(s, "encoder.sentence_encoder."), ("contact_head", "lm_head")),
        (lambda s: wrapped(compiled_layers(s), "_fsdp_wrapped_module."), ("contact_head", "lm_head")),
        (lambda s: {"state_dict": wrapped(s, "model.")}, ("contact_head", "lm_head")),
        (lambda s: {"state_dict": with_head(s, "model.esm."), "epoch": 3}, ("loss", "mlp")),
        (lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {0: s}}}, ("contact_head", "lm_head")),
        (lambda s: {"net": s, "loss": torch.tensor(0.1), "epoch": 3}, ("contact_head", "lm_head")),
        (lambda s: {"model": s, "args": Namespace(lr=1e-3)}, ("contact_head", "lm_head")),
        (lambda s: {"checkpoint": {"epoch": 3, "model": {"state_dict": s}}}, ("contact_head", "lm_head")),
    ],
)
def test_prefixes_and_tables(
    form: Callable[[State], object], left_out: tuple[str, ...], tmp_path: Path, model: ESM2, state: State
) -> None:
    torch.save(form(state), tmp_path / "mine.pt")
    checkpoint = open_checkpoint(tmp_path / "mine.pt")
    assert (checkpoint.config.name, checkpoint.source, checkpoint.left_out) == ("mine", "fair-esm", left_out)
    assert_parity(tmp_path / "mine.pt", model)


@pytest.mark.parametrize("prefix", ["", "esm.", "model.esm.", "module.esm.", "base_model.model.esm."])
def test_names_of_hugging_face(prefix: str, tmp_path: Path, model: ESM2) -> None:
    head = {f"{prefix.removesuffix('esm.')}classifier.weight": torch.ones(2, 32)}
    torch.save({"state_dict": hugging_face_state(model, prefix) | head}, tmp_path / "mine.ckpt")
    checkpoint = open_checkpoint(tmp_path / "mine.ckpt")
    assert (checkpoint.source, checkpoint.left_out) == ("huggingface", ("classifier",))
    assert_parity(tmp_path / "mine.ckpt", model)


def test_safetensors_in_the_layout_of_fair_esm(tmp_path: Path, model: ESM2, state: State) -> None:
    save_file(wrapped(state, "model."), tmp_path / "mine.safetensors")
    assert_parity(tmp_path / "mine.safetensors", model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_bare_state_dict_in_another_precision(dtype: torch.dtype, tmp_path: Path, model: ESM2, state: State) -> None:
    cast = {key: value.to(dtype) for key, value in state.items()}
    torch.save(cast, tmp_path / "mine.pt")
    reference = sharp_esm2(layers=2, dim=32, heads=2)
    for index, layer in enumerate(reference.layers):
        layer.self_attn.rot_emb.inv_freq = cast[inv_freq_key(index)].float()
    reference.load_state_dict({key: value.float() for key, value in cast.items()})
    assert {value.dtype for value in open_checkpoint(tmp_path / "mine.pt").state.values()} == {dtype}
    assert_parity(tmp_path / "mine.pt", reference)


def test_heads_of_an_official_size_without_frequencies(tmp_path: Path) -> None:
    official = ESM2(6, 320, 20, alphabet="ESM-1b")
    state = {key: value for key, value in official.state_dict().items() if not key.endswith("inv_freq")}
    torch.save(state, tmp_path / "mine.pt")
    assert open_checkpoint(tmp_path / "mine.pt").config.heads == 20


def test_heads_that_cannot_be_known(tmp_path: Path, state: State) -> None:
    torch.save({key: value for key, value in state.items() if "inv_freq" not in key}, tmp_path / "mine.pt")
    with pytest.raises(ModelError, match=r"mine\.pt: does not tell its number of attention heads \(2 layers of width"):
        open_checkpoint(tmp_path / "mine.pt")


def test_a_head_may_be_named_as_it_likes(tmp_path: Path, model: ESM2, state: State) -> None:
    heads = {"layers.weight": torch.ones(1), "decoder.embed.weight": torch.ones(1), "h.0.attn.bias": torch.ones(1)}
    torch.save(with_head(state, "model.encoder.") | heads, tmp_path / "mine.pt")
    assert open_checkpoint(tmp_path / "mine.pt").left_out == ("decoder", "h", "layers", "loss", "mlp")
    assert_parity(tmp_path / "mine.pt", model)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (lambda s: {"student": s, "teacher": s}, "holds several models, student, teacher; save the state_dict"),
        (lambda s: wrapped(s, "a.") | wrapped(s, "b."), "holds several encoders, at 'a', 'b'; save the state_dict"),
        (
            lambda s: wrapped(s, "a.") | {"layers.0.fc1.bias": s["layers.0.fc1.bias"]},
            "'layers.0.fc1.bias' occurs twice",
        ),
        (lambda s: s | {"layers.0.ffn_gate.weight": torch.ones(2)}, r"beyond an ESM-2 encoder layers\.0\.ffn_gate"),
        (lambda s: {k: v for k, v in s.items() if k != "layers.0.fc1.bias"}, r"lacks layers\.0\.fc1\.bias; the file"),
        (lambda s: {}, "no ESM-2 encoder in it"),
        (lambda s: {"epoch": 3, "lr": 0.1}, "no ESM-2 encoder in it"),
        (lambda s: {"weight": torch.ones(3)}, r"no ESM-2 encoder in it \(its names begin weight\)"),
        (lambda s: {"runs": {"a": s, "b": {"c": s}}}, r"holds several models, runs\.a, runs\.b\.c; save"),
        (lambda s: {"optimizer": {"state": {}}}, r"no ESM-2 encoder in it \(its names begin optimizer\)"),
        (
            lambda s: {k: v.to(torch.int8) for k, v in s.items()},
            "is not a tensor of floating-point numbers, but torch.int8",
        ),
        (lambda s: {k: v.tolist() for k, v in s.items()}, "is not a tensor of floating-point numbers, but list"),
        (
            lambda s: {k: v.numpy() for k, v in s.items()},
            "holds NumPy's arrays, which are not read; .* torch.from_numpy",
        ),
        (lambda s: [s], "holds a list, not a table of weights"),
        (lambda s: s["lm_head.bias"], "holds a Tensor, not a table of weights"),
    ],
)
def test_tables_that_are_not_one_encoder(
    content: Callable[[State], object], complaint: str, tmp_path: Path, state: State
) -> None:
    torch.save(content(state), tmp_path / "mine.pt")
    with pytest.raises(ModelError, match=rf"mine\.pt: .*{complaint}"):
        open_checkpoint(tmp_path / "mine.pt")


@pytest.fixture
def trainer_package(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package that is there when the file is written, and raises when any of its classes is made again."""
    package = types.ModuleType("a_trainer")
    source = """
import enum
class Kind(enum.Enum):
    FIT = 1
class Losses(list):
    pass
class Counts(set):
    pass
class Settings(dict):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
    def __setstate__(self, state):
        raise AssertionError('made again')
class Callback:
    def __init__(self):
        self.best = 0.5
    def __setstate__(self, state):
        raise AssertionError('made again')
"""
    exec(source, package.__dict__)
    for kind in (package.Settings, package.Callback, package.Kind, package.Losses, package.Counts):
        kind.__module__ = "a_trainer"
    monkeypatch.setitem(sys.modules, "a_trainer", package)
    return package


@pytest.mark.parametrize("new", [True, False])
def test_other_objects_of_a_trainer_are_left_unread(
    new: bool, tmp_path: Path, model: ESM2, state: State, trainer_package: types.ModuleType
) -> None:
    """As Lightning leaves them: settings in a class of its own, paths, numbers of numpy."""
    settings = trainer_package.Settings(lr=1e-3)
    settings.extra = "attribute"
    content = {
        "epoch": 3,
        "state_dict": wrapped(state, "model."),
        "hyper_parameters": settings,
        "callbacks": {"checkpoint": {"path": pathlib.PurePosixPath("best.ckpt"), "score": np.float64(0.5)}},
        "callback": trainer_package.Callback(),
        "logs": trainer_package.Losses([0.1, 0.2]),
        "counts": collections.defaultdict(list, {"a": [1]}),
        "kind": trainer_package.Kind.FIT,
        "when": datetime.datetime(2026, 1, 1),
    }
    torch.save(content, tmp_path / "mine.ckpt", _use_new_zipfile_serialization=new)
    with pytest.raises(AssertionError, match="made again"):
        torch.load(tmp_path / "mine.ckpt", weights_only=False)
    del sys.modules["a_trainer"]
    assert_parity(tmp_path / "mine.ckpt", model)


def test_objects_that_cannot_be_left_aside(tmp_path: Path, state: State, trainer_package: types.ModuleType) -> None:
    losses = trainer_package.Losses([0.1, 0.2])
    losses.unit = "nats"
    torch.save({"state_dict": state, "losses": losses}, tmp_path / "mine.ckpt")
    with pytest.raises(ModelError, match=r"objects beside the weights \(a_trainer\.Losses\) .*save the weights alone"):
        open_checkpoint(tmp_path / "mine.ckpt")


def test_code_beside_the_weights_of_a_trainer(tmp_path: Path, state: State) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return __import__("os").mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": state, "hyper_parameters": Payload()}, tmp_path / "mine.ckpt")
    with pytest.raises(ModelError, match=r"asks for posix\.mkdir to be run when read.*do not trust this file"):
        open_checkpoint(tmp_path / "mine.ckpt")
    assert not (tmp_path / "ran").exists()
