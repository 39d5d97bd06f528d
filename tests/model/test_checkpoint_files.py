"""Each path that a user may give for a model means the right files, or the message says which path to give."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from esm import ESM2
from esm2_reference import save_fair_esm, save_hugging_face, sharp_esm2

from virnucpro.errors import InputMissingError, ModelError
from virnucpro.model.describe import describe_model
from virnucpro.model.weights import open_checkpoint, weight_files

REPOSITORY = "models--facebook--esm2_t6_8M_UR50D"


@pytest.fixture(scope="module")
def model() -> ESM2:
    return sharp_esm2(layers=2, dim=32, heads=2)


def hub_cache(root: Path, models: dict[str, ESM2], main: str | None = None) -> Path:
    """A repository in a hub cache as the hub's client makes it: snapshots hold links to blobs."""
    folder = root / REPOSITORY
    for revision, model in models.items():
        snapshot, made = folder / "snapshots" / revision, root / f"made-{revision}"
        save_hugging_face(model, made)
        snapshot.mkdir(parents=True)
        (folder / "blobs").mkdir(exist_ok=True)
        for file in made.iterdir():
            blob = folder / "blobs" / f"{revision}{file.suffix}"
            shutil.move(file, blob)
            (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    if main is not None:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(main)
    return folder


def assert_model(path: Path, model: ESM2) -> None:
    state = open_checkpoint(path).state
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())


@pytest.mark.parametrize("layout", ["safetensors", "bin", "sharded-safetensors", "sharded-bin"])
def test_a_file_in_a_folder_means_its_folder(layout: str, tmp_path: Path, model: ESM2) -> None:
    folder = save_hugging_face(model, tmp_path / "tiny", layout)
    whole = describe_model(folder)
    for file in folder.iterdir():
        assert describe_model(file) == whole
        link = tmp_path / f"task-of-{file.name}" / file.name
        link.parent.mkdir()
        link.symlink_to(file)
        assert describe_model(link) == whole, "as Nextflow stages it"


def test_the_file_that_is_named_is_read(tmp_path: Path, model: ESM2) -> None:
    """Another file beside it may hold other weights."""
    other = sharp_esm2(layers=2, dim=32, heads=2, seed=4)
    folder = save_hugging_face(model, tmp_path / "tiny")
    shutil.move(save_hugging_face(other, tmp_path / "other", "bin") / "pytorch_model.bin", folder)
    shutil.move(save_hugging_face(other, tmp_path / "third") / "model.safetensors", folder / "model.fp16.safetensors")
    assert_model(folder, model)
    assert_model(folder / "model.safetensors", model)
    assert_model(folder / "pytorch_model.bin", other)
    assert_model(folder / "model.fp16.safetensors", other)
    assert open_checkpoint(folder / "model.fp16.safetensors").config.name == "model.fp16"


def test_a_fair_esm_file_beside_the_settings_of_another_model(tmp_path: Path, model: ESM2) -> None:
    folder = save_hugging_face(sharp_esm2(layers=1, dim=16, heads=2), tmp_path / "tiny")
    assert_model(save_fair_esm(model, folder / "mine.pt"), model)
    assert open_checkpoint(folder / "mine.pt").config.name == "mine"


@pytest.mark.parametrize("main", ["abc123", "abc123\n", None])
def test_the_root_of_a_hub_cache(main: str | None, tmp_path: Path, model: ESM2) -> None:
    models = {"abc123": model}
    if main is not None:
        models["def456"] = sharp_esm2(layers=2, dim=32, heads=2, seed=4)
    root = hub_cache(tmp_path, models, main)
    snapshot = root / "snapshots" / "abc123"
    for path in (root, snapshot, snapshot / "model.safetensors", snapshot / "config.json"):
        assert_model(path, model)
        assert weight_files(path) == [snapshot / "model.safetensors"]
        assert open_checkpoint(path).config.name == "esm2_t6_8M_UR50D"


def test_links_to_a_hub_cache(tmp_path: Path, model: ESM2) -> None:
    snapshot = hub_cache(tmp_path, {"abc123": model}) / "snapshots" / "abc123"
    (tmp_path / "task").mkdir()
    for target in (snapshot, snapshot / "model.safetensors"):
        link = tmp_path / "task" / target.name
        link.symlink_to(target)
        assert_model(link, model)
        assert open_checkpoint(link).config.name == "esm2_t6_8M_UR50D"
    (tmp_path / "my_model").symlink_to(snapshot)
    assert open_checkpoint(tmp_path / "my_model").config.name == "my_model"


@pytest.mark.parametrize(
    ("main", "complaint"),
    [
        (None, "a hub cache with several snapshots, abc123, def456; give the path of one in snapshots/"),
        ("fff", "refs/main names fff, which is not in snapshots/; download the model again"),
    ],
)
def test_a_hub_cache_that_does_not_say_which(main: str | None, complaint: str, tmp_path: Path, model: ESM2) -> None:
    root = hub_cache(tmp_path, {"abc123": model, "def456": model}, main)
    with pytest.raises(ModelError, match=rf"{REPOSITORY}: {complaint}"):
        open_checkpoint(root)


@pytest.mark.parametrize("place", [".", "..", "snapshots", "../../home"])
def test_a_hub_cache_of_one_model_means_that_model(place: str, tmp_path: Path, model: ESM2) -> None:
    """Its root, its home, the folder of its snapshots."""
    root = hub_cache(tmp_path / "hub", {"abc123": model}, "abc123")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "hub").symlink_to(tmp_path / "hub")
    path = (root / place).resolve()
    shutil.rmtree(tmp_path / "hub" / "made-abc123")
    assert_model(path, model)
    assert open_checkpoint(path).config.name == "esm2_t6_8M_UR50D"
    (tmp_path / "hub" / "models--lab--other").mkdir()
    if path.name in ("hub", "home"):
        with pytest.raises(ModelError, match=r"a hub cache; give one of those in it: .*models--lab--other"):
            open_checkpoint(path)


def test_a_snapshot_whose_blob_is_gone(tmp_path: Path, model: ESM2) -> None:
    root = hub_cache(tmp_path, {"abc123": model})
    (root / "blobs" / "abc123.safetensors").unlink()
    for path in (root, root / "snapshots" / "abc123", root / "snapshots" / "abc123" / "model.safetensors"):
        with pytest.raises(InputMissingError, match=r"abc123/model\.safetensors: No such file.*check the path"):
            open_checkpoint(path)


def touch(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"\x80")

    return make


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (touch(), "an empty folder"),
        (touch("notes.txt"), "no model.safetensors or pytorch_model.bin in it; give a folder that holds the weights"),
        (
            touch("esm2_t6_8M_UR50D.pt", "notes.txt"),
            "no model.safetensors or pytorch_model.bin in it; give the path of the file that holds them: "
            "esm2_t6_8M_UR50D.pt",
        ),
        (
            touch("models--facebook--a/refs/main", "models--facebook--b/refs/main"),
            "a hub cache; give one of those in it: models--facebook--a, models--facebook--b",
        ),
        (
            touch("checkpoint-500/model.safetensors", "checkpoint-1000/model.safetensors"),
            "a folder of several checkpoints; give one of those in it: checkpoint-1000, checkpoint-500",
        ),
        (touch("tf_model.h5", "config.json"), "tf_model.h5 in it is weights of Keras or TensorFlow; load it in"),
        (touch("flax_model.msgpack", "config.json"), "flax_model.msgpack in it is weights of Flax; load it in"),
        (touch("onnx/model.onnx", "config.json"), "onnx/model.onnx in it is an ONNX graph; give the PyTorch weights"),
        (touch("saved_model.pb"), "saved_model.pb in it is a TensorFlow graph"),
        (
            touch(".metadata", "__0_0.distcp"),
            ".metadata in it is part of a distributed checkpoint of torch (DCP); gather it first: python -m "
            "torch.distributed.checkpoint.format_utils dcp_to_torch",
        ),
        (
            touch("latest", "global_step5/mp_rank_00_model_states.pt", "zero_to_fp32.py"),
            "global_step5/mp_rank_00_model_states.pt in it is part of a DeepSpeed checkpoint",
        ),
        (
            touch("global_step5/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"),
            "global_step5/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt in it is part of a DeepSpeed checkpoint",
        ),
    ],
)
def test_folders_without_weights(make: Callable[[Path], None], complaint: str, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    make(folder)
    with pytest.raises(ModelError) as caught:
        open_checkpoint(folder)
    assert str(caught.value).startswith(f"{folder}: {complaint}")


def test_a_pointer_of_git_lfs_in_a_folder(tmp_path: Path, model: ESM2) -> None:
    folder = save_hugging_face(model, tmp_path / "tiny")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(ModelError, match=r"tiny/model\.safetensors: a Git LFS pointer.*run git lfs pull"):
        open_checkpoint(folder)
    (folder / "config.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    shutil.copy(save_hugging_face(model, tmp_path / "whole") / "model.safetensors", folder)
    with pytest.raises(ModelError, match=r"tiny/config\.json: a Git LFS pointer.*run git lfs pull"):
        open_checkpoint(folder)


def test_one_part_without_its_index(tmp_path: Path, model: ESM2) -> None:
    folder = save_hugging_face(model, tmp_path / "tiny", "sharded-safetensors")
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(
        ModelError, match=r"one of 2 parts of a model, and model\.safetensors\.index\.json is not beside"
    ):
        open_checkpoint(folder / "model-00001-of-00002.safetensors")


def test_a_link_to_itself(tmp_path: Path) -> None:
    os.symlink("loop.pt", tmp_path / "loop.pt")
    with pytest.raises(InputMissingError, match=r"loop\.pt: .*check the path"):
        open_checkpoint(tmp_path / "loop.pt")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pt")
    with pytest.raises(InputMissingError, match=r"model\.pt: a pipe or device, not a file of weights"):
        open_checkpoint(tmp_path / "model.pt")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "model.safetensors")
    (tmp_path / "folder" / "config.json").write_text("{}")
    with pytest.raises((InputMissingError, ModelError)):
        open_checkpoint(tmp_path / "folder")
