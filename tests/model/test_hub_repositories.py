"""Any repository of the hub that holds an encoder: under any class, at any revision, refused before its weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from esm2_reference import (
    hugging_face_config,
    packed_states,
    reference_states,
    relative_error,
    save_hugging_face,
    sharp_esm2,
)
from hub_server import COMMIT, Hub, serve
from test_parity import RESIDUE_LIMIT

from virnucpro.cli.fetch import main as fetch_program
from virnucpro.errors import ExitCode, ModelError, UsageError
from virnucpro.model.describe import describe_model
from virnucpro.model.fetch import fetch_model
from virnucpro.model.weights import load_model

NAME = "lab/tuned-esm2"
OTHER_COMMIT = "f" * 40
MODEL = sharp_esm2(layers=2, dim=32, heads=2)
#: What Synthyra's FastESM writes: its own class, whose code is never run.
FAST_ESM: dict[str, Any] = {
    "model_type": "fast_esm",
    "architectures": ["FastEsmForMaskedLM"],
    "auto_map": {"AutoConfig": "modeling_fastesm.FastEsmConfig", "AutoModel": "modeling_fastesm.FastEsmModel"},
    "attn_backend": "sdpa",
}


def settings(**changes: Any) -> bytes:
    return json.dumps(hugging_face_config(MODEL, **changes)).encode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models" / "models--lab--tuned-esm2"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    source = save_hugging_face(MODEL, tmp_path / "source", "safetensors")
    with serve(NAME, source, {"README.md": b"not wanted", "modeling_fastesm.py": b"raise SystemExit(3)"}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


@pytest.mark.parametrize("changes", [{}, FAST_ESM, {"model_type": "labs_own"}], ids=["esm", "fast_esm", "labs_own"])
def test_an_encoder_of_any_class(changes: dict[str, Any], hub: Hub, root: Path) -> None:
    hub.files["config.json"] = settings(**changes)
    path = fetch_model(NAME, root)
    assert path == root / "snapshots" / COMMIT
    assert sorted(file.name for file in path.iterdir()) == hub.fetched() == ["config.json", "model.safetensors"]
    described = describe_model(path)
    assert (described.name, described.revision) == (NAME, COMMIT)
    (states,) = packed_states(load_model(path, "fp32", "cpu"), ["MKTAYIAKQR"], [2])
    assert relative_error(states[2], reference_states(MODEL, "MKTAYIAKQR", [2])[2]) <= RESIDUE_LIMIT


def test_what_arrived_is_read_once(hub: Hub, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = root / "snapshots" / COMMIT / "model.safetensors"
    read: list[int] = []

    def counted(stream: BinaryIO, name: str, digest: Any = hashlib.file_digest) -> Any:
        read.append(os.fstat(stream.fileno()).st_ino)
        return digest(stream, name)

    monkeypatch.setattr("hashlib.file_digest", counted)
    monkeypatch.setenv("HOME", str(tmp_path))
    options = ["--model", NAME, "--cache", str(root.parent), "--outdir", str(tmp_path)]
    assert fetch_program(options) == ExitCode.OK
    assert read == [weights.stat().st_ino]
    described = json.loads((tmp_path / "model.json").read_text())
    assert described["weights_sha256"] == hashlib.sha256(hub.files["model.safetensors"]).hexdigest()
    facts, content = weights.stat(), bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert describe_model(weights.parent).weights_sha256 == hashlib.sha256(content).hexdigest()


def test_the_second_time_nobody_is_asked(hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch_model(NAME, root)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    hub.requests.clear()
    assert fetch_model(NAME, root) == fetch_model(NAME, root, "main") == fetch_model(NAME, root, COMMIT) == first
    assert hub.requests == []
    with pytest.raises(ModelError, match=r"lab/tuned-esm2 cannot be had from http://127\.0\.0\.1:9"):
        fetch_model(NAME, root, "v2")


def test_a_revision_is_pinned(hub: Hub, root: Path) -> None:
    """A tag, a commit and what the main branch means, beside each other; each goes on meaning what it did."""
    hub.others[OTHER_COMMIT] = {**hub.files, "config.json": settings(token_dropout=False)}
    hub.revisions["v2"] = OTHER_COMMIT
    paths = [fetch_model(NAME, root, revision) for revision in (None, "v2", OTHER_COMMIT)]
    assert [path.name for path in paths] == [COMMIT, OTHER_COMMIT, OTHER_COMMIT]
    described = [describe_model(path) for path in paths]
    assert [each.revision for each in described] == [COMMIT, OTHER_COMMIT, OTHER_COMMIT]
    assert (paths[1] / "config.json").read_bytes() == hub.others[OTHER_COMMIT]["config.json"]
    hub.revisions |= {"main": OTHER_COMMIT, "v2": COMMIT}
    assert [fetch_model(NAME, root, revision).name for revision in (None, "v2")] == [COMMIT, OTHER_COMMIT]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "bert", "vocab_size": 30}, "lab/tuned-esm2: a model of another family, BERT (ProtBert"),
        ({"model_type": "t5", "d_model": 1024}, "lab/tuned-esm2: a model of another family, T5 (ProtT5"),
        ({"model_type": "ESMplusplus"}, "lab/tuned-esm2: a model of another family, ESM C or ESM3"),
        ({"model_type": "mamba", "hidden_size": 8}, "lab/tuned-esm2: a model of another family, mamba: vocab_size is"),
        ({}, "lab/tuned-esm2: vocab_size is None, but "),
    ],
)
def test_another_family_is_refused_before_its_weights(config: dict[str, Any], told: str, hub: Hub, root: Path) -> None:
    hub.files["config.json"] = json.dumps(config).encode()
    with pytest.raises(ModelError, match=re.escape(told)):
        fetch_model(NAME, root)
    assert hub.fetched() == ["config.json"]
    assert not root.exists()


@pytest.mark.parametrize("silent", ["token_dropout", "position_embedding_type"])
def test_another_class_must_say_what_it_computes(silent: str, hub: Hub, root: Path) -> None:
    """transformers' own class assumes one thing where its settings are silent, FastESM another."""
    kept = {key: value for key, value in hugging_face_config(MODEL, **FAST_ESM).items() if key != silent}
    hub.files["config.json"] = json.dumps(kept).encode()
    with pytest.raises(ModelError, match=rf"lab/tuned-esm2: .*{silent}"):
        fetch_model(NAME, root)
    assert hub.fetched() == ["config.json"]


def test_weights_of_another_layout_are_not_kept(hub: Hub, root: Path, tmp_path: Path) -> None:
    other = save_hugging_face(sharp_esm2(layers=1, dim=32, heads=2), tmp_path / "other", "safetensors")
    hub.files["model.safetensors"] = (other / "model.safetensors").read_bytes()
    with pytest.raises(ModelError, match=r"not the ESM-2 of 2 layers of width 32 that it says"):
        fetch_model(NAME, root)
    assert not root.exists() and not list(root.parent.glob(".*.partial"))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b""}, "a PEFT adapter, not a whole model; merge"),
        ({"esm2.pt": b""}, "without config.json and weights; download esm2.pt and give its path"),
        ({"README.md": b""}, "without config.json and weights; give the path of a model"),
    ],
)
def test_repositories_without_a_model(files: dict[str, bytes], told: str, hub: Hub, root: Path) -> None:
    hub.files = files
    with pytest.raises(ModelError, match=re.escape(told)):
        fetch_model(NAME, root)
    assert hub.fetched() == []


def test_one_file_is_preferred_to_parts_and_variants(hub: Hub, root: Path) -> None:
    whole = hub.files["model.safetensors"]
    hub.files |= dict.fromkeys(
        ("model.fp16.safetensors", "model-00001-of-00002.safetensors", "model/model.safetensors", "pytorch_model.bin"),
        b"not wanted",
    )
    assert (fetch_model(NAME, root) / "model.safetensors").read_bytes() == whole
    assert hub.fetched() == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("name", "revision", "closed", "told"),
    [
        ("lab/nothing", None, "", "no such file or folder, and lab/nothing cannot be had .* no such repository there"),
        (NAME, "v9", "", "no revision v9 there; check --model_revision"),
        (NAME, None, "GatedRepo", "its owners give access on request; ask them on its page and set HF_TOKEN"),
        (NAME, None, "Busy", "it answers with status 403"),
    ],
)
def test_what_the_hub_refuses(name: str, revision: str | None, closed: str, told: str, hub: Hub, root: Path) -> None:
    hub.closed = closed
    with pytest.raises(ModelError, match=told) as caught:
        fetch_model(name, root, revision)
    assert caught.value.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert not root.exists()


@pytest.mark.parametrize(
    ("name", "revision"),
    [("esm2_t6_8M_UR50D", "main"), ("model.pt", "main"), (NAME, "../../secret"), (NAME, "-v"), (NAME, "a b")],
)
def test_revisions_that_make_no_sense(name: str, revision: str, hub: Hub, root: Path) -> None:
    with pytest.raises(UsageError, match="--model_revision is"):
        fetch_model(name, root, revision)
    assert hub.requests == []


def test_a_damaged_reference_is_told_of_a_path_and_written_anew_by_name(hub: Hub, root: Path) -> None:
    fetch_model(NAME, root)
    (root / "refs" / "main").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ModelError, match=r"refs/main names .*, which is not in snapshots/; download the model again"):
        describe_model(root)
    assert fetch_model(NAME, root) == root / "snapshots" / COMMIT
    assert (root / "refs" / "main").read_text() == COMMIT


def test_a_damaged_snapshot_is_named(hub: Hub, root: Path) -> None:
    path = fetch_model(NAME, root)
    (path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match=rf"{path} is not a whole {NAME} \(.+\); remove it"):
        fetch_model(NAME, root)
    shutil.rmtree(path)
    assert fetch_model(NAME, root) == path
    assert describe_model(path).revision == COMMIT
