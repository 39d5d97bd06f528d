"""The plain twin in fp32 is fair-esm in fp32, family by family, whatever form its weights come in."""

from __future__ import annotations

import random
import weakref
from pathlib import Path

import pytest
import torch
from esm2_reference import (
    encode,
    packed_states,
    random_sequence,
    reference_states,
    relative_error,
    save_fair_esm,
    save_hugging_face,
    sharp_esm2,
)
from test_esm1 import save_as_published, sharp_esm1

from virnucpro.kernels import device
from virnucpro.model import twin
from virnucpro.model.twin import twin_states
from virnucpro.model.weights import Checkpoint, load_model, open_checkpoint, open_resident

CPU = torch.device("cpu")
SEQUENCES = ["G", "MKTAYIAKQRQISFVKSHFSRQ", random_sequence(200, random.Random(3)), "MK#AYI#KQ"]


def worst(path: Path, model: torch.nn.Module, depth: int) -> float:
    """The twin's greatest relative L2 to fair-esm, over all tokens."""
    states = twin_states(path, [encode(each) for each in SEQUENCES], CPU)
    expected = [reference_states(model, each, [depth])[depth] for each in SEQUENCES]  # type: ignore[arg-type]
    return max(relative_error(ours, theirs) for ours, theirs in zip(states, expected, strict=True))


@pytest.mark.parametrize("layout", ["fair-esm", "hugging face"])
def test_esm2(tmp_path: Path, layout: str) -> None:
    model = sharp_esm2(layers=3)
    save = save_fair_esm if layout == "fair-esm" else save_hugging_face
    assert worst(save(model, tmp_path / "model.pt"), model, 3) < 5e-6


@pytest.mark.parametrize("norm_before", [True, False], ids=["ESM-1b", "ESM-1v"])
def test_esm1(tmp_path: Path, norm_before: bool) -> None:
    model = sharp_esm1(norm_before=norm_before)
    path = save_as_published(model, tmp_path / "model.pt")
    assert worst(path, model, model.num_layers) < 5e-6


def test_queries_in_blocks_are_the_same_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = sharp_esm2()
    monkeypatch.setattr(twin, "QUERIES", 7)
    assert worst(save_fair_esm(model, tmp_path / "model.pt"), model, 2) < 5e-6


def test_plain_operations_end_with_their_block(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    tensor = torch.empty(0)
    assert device.uses_triton(tensor)
    with pytest.raises(ZeroDivisionError), device.plain_operations():
        assert not device.uses_triton(tensor)
        raise ZeroDivisionError
    assert device.uses_triton(tensor)


def test_a_plain_model_uses_none_of_our_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    path = save_fair_esm(sharp_esm2(), tmp_path / "model.pt")
    backends = [load_model(path, "fp16", CPU, plain=plain).attention_backend for plain in (False, True)]
    assert backends == ["triton", "sdpa"]


def test_one_layer_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_fair_esm(sharp_esm2(layers=4), tmp_path / "model.pt")
    parts: list[weakref.ref[object]] = []
    alive: list[int] = []
    layer = twin._layer

    def counting(part: twin._Part, *arguments: torch.Tensor) -> torch.Tensor:
        if not parts or parts[-1]() is not part:
            parts.append(weakref.ref(part))
        alive.append(sum(each() is not None for each in parts))
        return layer(part, *arguments)

    monkeypatch.setattr(twin, "_layer", counting)
    twin_states(path, [encode(each) for each in SEQUENCES], CPU)
    assert len(parts) == 4
    assert set(alive) == {1}


def test_a_checkpoint_serves_model_and_twin_as_its_path_does(tmp_path: Path) -> None:
    path = save_fair_esm(sharp_esm2(), tmp_path / "model.pt")
    ids = [encode(each) for each in SEQUENCES]
    opened = open_checkpoint(path)
    models = [load_model(source, "fp32", CPU) for source in (opened, path, opened)]
    first, *others = [packed_states(model, SEQUENCES, (2,)) for model in models]
    assert all(torch.equal(a[2], b[2]) for other in others for a, b in zip(first, other, strict=True))
    for ours, theirs in zip(twin_states(opened, ids, CPU), twin_states(path, ids, CPU), strict=True):
        assert torch.equal(ours, theirs)


def test_no_weights_are_resident_without_a_gpu(tmp_path: Path) -> None:
    assert open_resident(tmp_path / "none.pt", CPU) == tmp_path / "none.pt"


@pytest.mark.gpu
def test_weights_are_resident_where_they_leave_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, gpu = save_fair_esm(sharp_esm2(), tmp_path / "model.pt"), torch.device("cuda", 0)
    opened = open_resident(path, gpu)
    assert isinstance(opened, Checkpoint)
    assert {tensor.device for tensor in opened.state.values()} == {gpu}
    weights = sum(tensor.nbytes for tensor in opened.state.values())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (4 * weights - 1, 4 * weights))
    assert open_resident(path, gpu) == path
