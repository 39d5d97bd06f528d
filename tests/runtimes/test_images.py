"""Which packages the embed image is built of, and where images go; a recorder stands in for the engine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from pipeline_run import EMBED_IMAGE, TOOLS_IMAGE

from virnucpro import __version__

PROJECT = Path(__file__).parents[2]
RECORDER = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word" >>"$RECORD"; done
echo --- >>"$RECORD"
"""


def build(folder: Path, *words: str, **choice: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """Run build.sh; returns what it said, and the words of each call of the engine."""
    engine, record = folder / "engine", folder / "record"
    engine.write_text(RECORDER)
    engine.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CUDA"}
    done = subprocess.run(
        ["bash", PROJECT / "containers" / "build.sh", *words],
        env={**environment, "ENGINE": str(engine), "RECORD": str(record), **choice},
        capture_output=True,
        text=True,
        check=False,
    )
    calls = record.read_text().split("---\n")[:-1] if record.exists() else []
    return done, [call.splitlines() for call in calls]


@pytest.mark.parametrize(
    ("choice", "lock"),
    [
        ({}, "requirements.lock"),
        ({"CUDA": ""}, "requirements.lock"),
        ({"CUDA": "13"}, "requirements.lock"),
        ({"CUDA": "12"}, "requirements-cu12.lock"),
    ],
)
def test_the_embed_image_is_built_from_either_lock(choice: dict[str, str], lock: str, tmp_path: Path) -> None:
    done, (tools, embed) = build(tmp_path, **choice)
    assert done.returncode == 0, done.stderr
    assert f"LOCK={lock}" in embed
    assert not [word for word in tools if word.startswith("LOCK=")]
    assert (PROJECT / lock).is_file()


def test_what_is_published_is_what_was_built(tmp_path: Path) -> None:
    done, calls = build(tmp_path, "push", REGISTRY="registry.invalid/lab")
    assert done.returncode == 0, done.stderr
    for image, (built, tagged, pushed) in zip((TOOLS_IMAGE, EMBED_IMAGE), (calls[:3], calls[3:]), strict=True):
        assert built[0] == "build" and built[built.index("--tag") + 1] == image
        assert f"VERSION={__version__}" in built
        assert tagged == ["tag", image, f"registry.invalid/lab/{image}"]
        assert pushed == ["push", f"registry.invalid/lab/{image}"]


def test_nothing_is_built_for_a_registry_without_a_name(tmp_path: Path) -> None:
    done, calls = build(tmp_path, "push", REGISTRY="")
    assert (done.returncode, calls) == (2, [])
    assert done.stderr == "push: REGISTRY must name a registry, as ghcr.io/OWNER\n"


def test_another_cuda_builds_nothing(tmp_path: Path) -> None:
    done, calls = build(tmp_path, CUDA="11")
    assert (done.returncode, done.stderr, calls) == (2, "CUDA=11: must be 12 or 13\n", [])


def test_the_dockerfile_installs_the_lock_that_it_is_given() -> None:
    text = (PROJECT / "containers" / "embed.Dockerfile").read_text()
    assert re.findall(r"^ARG LOCK=(.+)$", text, re.MULTILINE) == ["requirements.lock"]
    assert "COPY ${LOCK} " in text and "-r /tmp/${LOCK}\n" in text
    named = set(re.findall(r"requirements[\w-]*\.lock", text))
    assert named == {"requirements.lock", "requirements-cu12.lock", "requirements-uv.lock"}


@pytest.mark.parametrize("name", ["tools", "embed"])
def test_images_hold_the_bytecode_that_their_tasks_may_not_write(name: str) -> None:
    text = (PROJECT / "containers" / f"{name}.Dockerfile").read_text()
    assert " --compile-bytecode " in text and " --require-hashes " in text
    assert "PYTHONDONTWRITEBYTECODE" not in text
