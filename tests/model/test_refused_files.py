"""What is no ESM-2 that can be read is told by its name, with what to do; "damaged" is said only of what is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from esm import ESM2
from esm2_reference import save_fair_esm, save_hugging_face, sharp_esm2
from torch import nn

from virnucpro.errors import ExitCode, ModelError
from virnucpro.model.weights import open_checkpoint


@pytest.fixture(scope="module")
def model() -> ESM2:
    return sharp_esm2(layers=2, dim=32, heads=2)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert caught.value.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert message.startswith(f"{path}") and "\n" not in message and ";" in message
    return message.removeprefix(str(path)).removeprefix(": ")


def saved(content: object, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def zipped(names: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model/config.json"))
    return stream.getvalue()


def scripted() -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("model.pt", b"", "an empty file; download the model again"),
        ("model.safetensors", b"", "an empty file; download the model again"),
        (
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 31408014\n",
            "a Git LFS pointer, not the file itself; run git lfs pull",
        ),
        ("model.pt", b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "a web page or a server's message"),
        (
            "model.pt",
            b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
            "a web page or a server's message",
        ),
        ("model.pt", b'{"error": "Repository not found"}', "JSON text, perhaps a server's message"),
        ("model.gguf", b"GGUF\x03\0\0\0", "a GGUF file of quantised weights; give the PyTorch weights"),
        ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, as Keras and TensorFlow write; load it in"),
        ("tf_model.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, as Keras and TensorFlow write; load it in"),
        ("flax_model.msgpack", b"\x81\xa6params", "weights of Flax; load it in"),
        ("model.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX graph; give the PyTorch weights"),
        ("saved_model.pb", b"\x08\x01\x12", "a TensorFlow graph; load it in"),
        ("model.pt", zipped({"model/config.json": b"{}"}), "a zip archive; unpack it"),
        ("model.keras", zipped({"config.json": b"{}", "model.weights.h5": b""}), "a Keras archive; load it in"),
        ("model.npz", zipped({"a.npy": b"\x93NUMPY"}), "NumPy arrays, not a model"),
        ("model.npy", b"\x93NUMPY\x01\0", "a NumPy array, not a model"),
        ("model.tar", tarred(), "a tar archive; unpack it"),
        ("model.pt.gz", gzip.compress(b"weights", mtime=0), "compressed with gzip; unpack it"),
        ("model.pt", bz2.compress(b"weights"), "compressed with bzip2; unpack it"),
        ("model.pt", lzma.compress(b"weights"), "compressed with xz; unpack it"),
        ("model.pt", b"\x28\xb5\x2f\xfd" + bytes(20), "compressed with zstd; unpack it"),
        ("model.pt", b">protein\nMKV\n", "a FASTA file, not a model; sequences go to --input"),
        ("model.pt", b"7z\xbc\xaf\x27\x1c" + bytes(20), "a 7z archive; unpack it"),
        ("model.pt", scripted(), "a TorchScript program, which is never run; save the weights of the model"),
        ("training_args.bin", saved({}), "the state of a training, not its weights; give the folder"),
        ("optimizer.pt", saved({"state": {}}), "the state of a training, not its weights; give the folder"),
        ("mp_rank_00_model_states.pt", saved({}), "part of a DeepSpeed checkpoint"),
        ("bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", saved({}), "part of a DeepSpeed checkpoint"),
        ("__0_0.distcp", saved({}), "part of a distributed checkpoint of torch (DCP); gather it first"),
        ("tokenizer_config.json", b"{}", "settings, not weights; give the folder"),
        ("esm2_t6_8M_UR50D-contact-regression.pt", saved({"model": {}}), "the contact head alone; give the .pt file"),
        ("a.pt", saved({"model": {"contact_head.regression.weight": torch.ones(1)}}), "the contact head alone"),
        ("model.pt", b"odd", "not a file of weights"),
        (
            "model.pt",
            pickle.dumps({"embed_tokens.weight": [1.0]}),
            "a plain pickle, which is never run; save the weights",
        ),
        ("model.pt", pickle.dumps({"w": torch.ones(2)}), "a plain pickle, which is never run; save the weights"),
    ],
)
def test_other_files(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert message.startswith(expected)
    assert "damaged" not in message


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def test_damaged_is_said_of_what_is_damaged(tmp_path: Path, model: ESM2) -> None:
    file = save_fair_esm(model, tmp_path / "tiny.pt")
    file.write_bytes(cut(file.read_bytes()))
    assert refusal(file).startswith("damaged or cut short")
    folder = save_hugging_face(model, tmp_path / "tiny")
    weights = folder / "model.safetensors"
    weights.write_bytes(cut(weights.read_bytes()))
    with pytest.raises(ModelError, match=r"model\.safetensors: damaged or cut short"):
        open_checkpoint(folder)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    ("whole", "kind"),
    [
        (lambda: sharp_esm2(2, 32, 2), "esm.model.esm2.ESM2"),
        (Net, f"{__name__}.Net"),
        (lambda: nn.DataParallel(nn.Linear(2, 2)), "torch.nn.parallel.data_parallel.DataParallel"),
        (lambda: nn.Sequential(nn.Linear(2, 2)), "torch.nn.modules.container.Sequential"),
    ],
)
def test_a_whole_pickled_module(whole: Callable[[], nn.Module], kind: str, new: bool, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(saved(whole(), _use_new_zipfile_serialization=new))
    assert refusal(tmp_path / "model.pt").startswith(
        f"a whole pickled object of class {kind}, which cannot be read without running code; where it was made, "
        "save its weights alone: torch.save(model.state_dict(), 'weights.pt')"
    )


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (lambda: {"model": sharp_esm2(2, 32, 2), "epoch": 3}, "esm.model.esm2.ESM2"),
        (lambda: {"epoch": np.float64(3), "net": Net(), "optimizer": {"state": {}}}, f"{__name__}.Net"),
        (lambda: [Net()], f"{__name__}.Net"),
    ],
)
def test_a_whole_pickled_module_among_others(
    content: Callable[[], object], kind: str, new: bool, tmp_path: Path
) -> None:
    torch.save(content(), tmp_path / "model.pt", _use_new_zipfile_serialization=new)
    message = refusal(tmp_path / "model.pt")
    assert re.match(
        rf"(a whole pickled object of class|holds objects beside the weights \()\b.*{re.escape(kind)}\b", message
    )
    assert message.endswith("alone: torch.save(model.state_dict(), 'weights.pt')")
