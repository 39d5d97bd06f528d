"""A checkpoint that has not changed is described once; one that has, however it changed, is described anew."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from esm import ESM2
from esm2_reference import save_fair_esm, save_hugging_face, sharp_esm2

from virnucpro.model.kept_descriptions import YOUNG_SECONDS, describe_once
from virnucpro.output.contracts import ModelDescription

pytestmark = pytest.mark.one_torch
PROGRAM = Path(__file__).parents[2] / "bin" / "fetch_model.py"


@pytest.fixture(scope="module")
def model() -> ESM2:
    return sharp_esm2(layers=2, dim=32, heads=2)


def describe(path: Path, home: Path) -> tuple[dict[str, object], bool]:
    """What ``fetch_model.py`` says of a model, and whether it had to read it: torch is imported for nothing else."""
    outdir = home.parent / "described"
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(outdir)}
    command = [sys.executable, "-X", "importtime", PROGRAM, "--model", path, "--outdir", outdir]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    described = json.loads((outdir / "model.json").read_text())
    del described["digest"]
    return described, any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines())


def grow_old() -> None:
    time.sleep(YOUNG_SECONDS + 0.1)


def kept(home: Path) -> list[Path]:
    return sorted(home.rglob("*.json"))


def test_the_second_run_reads_nothing(model: ESM2, tmp_path: Path) -> None:
    path, home = save_fair_esm(model, tmp_path / "tiny.pt"), tmp_path / "home"
    grow_old()
    first = describe(path, home)
    assert first[1]
    assert describe(path, home) == (first[0], False)
    link = tmp_path / "other name.pt"
    link.symlink_to(path)
    assert describe(link, home) == (first[0] | {"name": "other name", "files": ["other name.pt"]}, True)


def test_a_change_of_the_same_size_with_its_old_time_is_seen(model: ESM2, tmp_path: Path) -> None:
    path, home = save_fair_esm(model, tmp_path / "tiny.pt"), tmp_path / "home"
    grow_old()
    before, _ = describe(path, home)
    times, content = path.stat(), path.read_bytes()
    changed = content.replace(model.embed_tokens.weight[5].numpy().tobytes(), bytes(model.embed_dim * 4), 1)
    assert len(changed) == len(content) and changed != content
    path.write_bytes(changed)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after, read = describe(path, home)
    assert read and after["weights_sha256"] != before["weights_sha256"]


def test_other_settings_are_seen(model: ESM2, tmp_path: Path) -> None:
    path, home = save_hugging_face(model, tmp_path / "tiny"), tmp_path / "home"
    grow_old()
    describe(path, home)
    assert not describe(path, home)[1]
    (path / "config.json").write_text((path / "config.json").read_text() + "\n")
    assert describe(path, home)[1]


def test_what_changed_a_moment_ago_is_not_kept(model: ESM2, tmp_path: Path) -> None:
    path = save_fair_esm(model, tmp_path / "tiny.pt")
    os.utime(path, (time.time() + 60, time.time() + 60))
    describe(path, tmp_path / "home")
    assert kept(tmp_path / "home") == []


def test_a_full_home_keeps_nothing_of_it(model: ESM2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_fair_esm(model, tmp_path / "tiny.pt")
    grow_old()

    def write_half(_: ModelDescription, file: Path) -> None:
        file.write_text("{")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(ModelDescription, "write", write_half)
    assert describe_once(path).layers == 2
    assert [each for each in (tmp_path / "home").rglob("*") if each.is_file()] == []


def test_a_damaged_or_closed_home_is_no_error(model: ESM2, tmp_path: Path) -> None:
    path, home = save_fair_esm(model, tmp_path / "tiny.pt"), tmp_path / "home"
    grow_old()
    first, _ = describe(path, home)
    (file,) = kept(home)
    file.write_text("{")
    assert describe(path, home) == (first, True)
    assert describe(path, home) == (first, False)
    (tmp_path / "no folder").touch()
    assert describe(path, tmp_path / "no folder") == (first, True)
