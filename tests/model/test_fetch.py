"""Fetching from a hub on loopback: whole, broken off, refused, damaged, unreachable."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from esm2_reference import save_fair_esm, save_hugging_face, sharp_esm2
from hub_server import Hub, serve

from virnucpro.errors import ExitCode, InputMissingError, ModelError
from virnucpro.model import fetch, registry
from virnucpro.model.fetch import as_given, fetch_model, is_local
from virnucpro.model.registry import Esm2Config
from virnucpro.model.weights import read_checkpoint

NAME = "esm2_t2_tiny"


@pytest.fixture(autouse=True)
def tiny_model_is_registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    models = dict(registry.MODELS) | {NAME: Esm2Config(NAME, 2, 32, 2)}
    monkeypatch.setattr(registry, "MODELS", models)
    monkeypatch.setattr(fetch, "MODELS", models)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub_cache"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_hugging_face(sharp_esm2(layers=2, dim=32, heads=2), tmp_path / "source", "sharded-safetensors")


@pytest.fixture
def hub(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    others = {"pytorch_model.bin": b"not wanted", "tf_model.h5": b"not wanted", "README.md": b"not wanted"}
    with serve(f"facebook/{NAME}", checkpoint, others) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


def test_fetched_model_is_whole_and_nothing_else(tmp_path: Path, hub: Hub, checkpoint: Path) -> None:
    path = fetch_model(NAME, tmp_path / "out" / NAME)
    assert path == tmp_path / "out" / NAME
    wanted = sorted(file.name for file in checkpoint.iterdir())
    assert sorted(file.name for file in path.iterdir()) == wanted == hub.fetched()
    assert all((path / name).read_bytes() == (checkpoint / name).read_bytes() for name in wanted)
    assert read_checkpoint(path)[0] == Esm2Config(NAME, 2, 32, 2)
    assert not (tmp_path / "out" / f".{NAME}.partial").exists()


def test_second_fetch_asks_nobody(tmp_path: Path, hub: Hub) -> None:
    first = fetch_model(NAME, tmp_path / NAME)
    hub.requests.clear()
    assert fetch_model(NAME, tmp_path / NAME) == first
    assert hub.requests == []


def test_broken_transfer_goes_on_where_it_stopped(
    tmp_path: Path, hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    name = "model-00001-of-00002.safetensors"
    hub.cut_after[name] = 5000
    path = fetch_model(NAME, tmp_path / NAME)
    assert (path / name).read_bytes() == (checkpoint / name).read_bytes()
    ranges = [asked for method, where, asked in hub.requests if method == "GET" and where.endswith(name)]
    assert ranges == [None, "bytes=5000-"]


def test_interrupted_fetch_keeps_the_files_it_has(tmp_path: Path, hub: Hub) -> None:
    hub.refuse["model-00002-of-00002.safetensors"] = 503
    with pytest.raises(ModelError, match=rf"{NAME} cannot be had from {hub.address}: it answers with status 503"):
        fetch_model(NAME, tmp_path / NAME)
    assert not (tmp_path / NAME).exists()
    complete = {file.name for file in (tmp_path / f".{NAME}.partial").iterdir() if file.is_file()}
    hub.requests.clear()
    assert read_checkpoint(fetch_model(NAME, tmp_path / NAME))[0].layers == 2
    assert "model-00002-of-00002.safetensors" in hub.fetched()
    assert complete and complete.isdisjoint(hub.fetched())


def test_what_a_killed_fetch_had_of_a_file_is_not_kept_for_ever(tmp_path: Path, hub: Hub) -> None:
    half = tmp_path / f".{NAME}.partial" / ".cache" / "huggingface" / "download" / "a.b.1234.incomplete"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    hub.refuse["model-00002-of-00002.safetensors"] = 503
    with pytest.raises(ModelError):
        fetch_model(NAME, tmp_path / NAME)
    assert half.parent.exists() and not half.exists()


def test_damaged_file_is_noticed_and_fetched_anew(tmp_path: Path, hub: Hub, checkpoint: Path) -> None:
    name = "model-00001-of-00002.safetensors"
    whole = (checkpoint / name).read_bytes()
    hub.damage[name] = whole[:-1] + bytes([whole[-1] ^ 1])
    with pytest.raises(ModelError, match=f"{name} arrived damaged"):
        fetch_model(NAME, tmp_path / NAME)
    assert not (tmp_path / NAME).exists()
    hub.damage.clear()
    assert (fetch_model(NAME, tmp_path / NAME) / name).read_bytes() == whole


def test_model_of_other_sizes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = save_hugging_face(sharp_esm2(layers=1, dim=32, heads=2), tmp_path / "other")
    with serve(f"facebook/{NAME}", other) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        with pytest.raises(ModelError, match=r"\(1, 32, 2\), but esm2_t2_tiny has \(2, 32, 2\)"):
            fetch_model(NAME, tmp_path / NAME)
    assert not (tmp_path / NAME).exists()


def test_pickled_weights_where_there_are_no_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_hugging_face(sharp_esm2(layers=2, dim=32, heads=2), tmp_path / "source", "sharded-bin")
    with serve(f"facebook/{NAME}", source) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address + "/")
        assert read_checkpoint(fetch_model(NAME, tmp_path / NAME))[0].layers == 2


def test_repository_that_is_not_there(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(ModelError, match=r"no facebook/esm2_t6_8M_UR50D there; check HF_ENDPOINT") as caught:
        fetch_model("esm2_t6_8M_UR50D", tmp_path / "model")
    assert caught.value.exit_code == ExitCode.MODEL_UNAVAILABLE


def test_repository_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text(json.dumps({}))
    with serve(f"facebook/{NAME}", tmp_path / "source") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        with pytest.raises(ModelError, match=r"without config\.json and weights"):
            fetch_model(NAME, tmp_path / NAME)


def test_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(ModelError, match=r"check the network, or download it elsewhere"):
            fetch_model(NAME, tmp_path / NAME)
    assert not (tmp_path / NAME).exists()


def test_hub_lost_half_way_is_no_success(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refuse["model-00002-of-00002.safetensors"] = 500
    with pytest.raises(ModelError):
        fetch_model(NAME, tmp_path / NAME)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(ModelError, match="cannot be had"):
            fetch_model(NAME, tmp_path / NAME)
    assert not (tmp_path / NAME).exists()


def test_too_little_space(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(ModelError, match=r"GB are free; make room"):
        fetch_model(NAME, tmp_path / NAME)
    assert hub.fetched() == []


def test_disk_that_fills_up(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ModelError, match="no space left; make room"):
        fetch_model(NAME, tmp_path / NAME)


def test_two_runs_fetch_once(tmp_path: Path, hub: Hub, checkpoint: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch_model(NAME, tmp_path / NAME))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / NAME] * 3
    assert hub.fetched() == sorted(file.name for file in checkpoint.iterdir())


def test_an_empty_folder_gives_way_to_the_model(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / NAME).mkdir()
    assert read_checkpoint(fetch_model(NAME, tmp_path / NAME))[0].layers == 2


@pytest.mark.parametrize("left", ["weights/model.safetensors", "config.json", "README.md"])
def test_a_folder_that_is_no_model_is_left_alone_and_named(tmp_path: Path, hub: Hub, left: str) -> None:
    file = tmp_path / NAME / left
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with pytest.raises(ModelError, match=rf"{tmp_path / NAME} is not a whole {NAME} \(.+\); remove it") as caught:
        fetch_model(NAME, tmp_path / NAME)
    assert caught.value.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert file.read_text() == "{}"
    assert hub.requests == []


def test_messages_name_the_path_that_a_task_links_to(tmp_path: Path) -> None:
    for name in ("user/model.pt", "elsewhere/blob"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "model.pt").symlink_to(tmp_path / "user" / "model.pt")
    (tmp_path / "task" / "own.pt").symlink_to("../elsewhere/blob")
    assert as_given(tmp_path / "task" / "model.pt") == tmp_path / "user" / "model.pt"
    assert as_given(tmp_path / "task" / "own.pt") == tmp_path / "task" / "own.pt"
    assert as_given(tmp_path / "user" / "model.pt") == tmp_path / "user" / "model.pt"


@pytest.mark.parametrize(
    ("name", "local"),
    [
        *(("model.pt", True), (".", True), ("esm2_t33_650M_UR50D", False), ("model", False)),
        *(("lab/tuned-2.0", False), ("a/b.pt", True), ("a/b.safetensors", True), ("a/b/c", True), ("./model", True)),
        *(("../model", True), ("/model", True), ("lab/model/", True), ("~/model", True), ("lab/mo del", True)),
    ],
)
def test_what_means_a_path(name: str, local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_local(name) is local
    (tmp_path / "lab" / "tuned-2.0").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    assert is_local(name) is (local or name in ("model", "lab/tuned-2.0"))


def test_path_is_checked_where_it_lies(tmp_path: Path) -> None:
    path = save_fair_esm(sharp_esm2(layers=1, dim=32, heads=2), tmp_path / "own.pt")
    assert fetch_model(str(path), tmp_path / "cache") == path
    assert not (tmp_path / "cache").exists()
    torch.save({}, path)
    with pytest.raises(ModelError, match=r"own\.pt"):
        fetch_model(str(path), tmp_path / "cache")


@pytest.mark.parametrize("path", ["nowhere/models/model", "./model", "esm2_t33_650M_UR50D.pt"])
def test_path_with_nothing_there(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputMissingError, match="no such file or folder"):
        fetch_model(path, tmp_path)


def test_the_path_of_an_official_model_that_is_not_there_offers_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="the official model is --model esm2_t33_650M_UR50D"):
        fetch_model("models/of/esm2_t33_650M_UR50D.pt", tmp_path)


def test_unknown_name_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did you mean esm2_t33_650M_UR50D"):
        fetch_model("esm2_t33_650M_UR50", tmp_path)
    assert list(tmp_path.iterdir()) == []
