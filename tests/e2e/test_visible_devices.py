"""Which devices GPU tasks of this machine take, conf/gpu_slot.sh decides, whatever the version of Nextflow."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gpu_locks import LOCKS, remove_locks
from launch import MODEL, PROJECT, Launch, launch

STAND_INS = PROJECT / "tests" / "runtimes" / "stand_ins"


def stub(folder: Path, visible: str, *arguments: str, profile: str = "test", **changes: str) -> Launch:
    """Two shards of nothing, on GPUs that CUDA_VISIBLE_DEVICES names."""
    given = ("-stub", "-profile", profile, "--model", MODEL, "--report", "false", *arguments)
    return launch(folder, *given, environment={"CUDA_VISIBLE_DEVICES": visible, **changes})


@contextmanager
def devices(*names: str) -> Iterator[None]:
    """No locks are left of devices that do not exist."""
    try:
        yield
    finally:
        remove_locks(*names)


@pytest.mark.one_engine
def test_no_device_to_be_seen_is_told_in_our_words(tmp_path: Path) -> None:
    run = stub(tmp_path, "", "--gpus", "2")
    assert run.code == 2, run.output
    (line,) = [line for line in run.last_lines.splitlines() if line.startswith("No results: ")]
    assert "no GPU to be seen" in line and "run with --gpus 0" in line
    assert run.statuses()["EMBED_SHARD"] == {"FAILED"} and "retry" not in run.output.lower()
    assert run.published() == []


@pytest.mark.one_engine
def test_a_task_takes_the_free_device_beside_a_held_one(tmp_path: Path) -> None:
    held, free = (f"GPU-{tmp_path.name}-{name}" for name in ("held", "free"))
    LOCKS.mkdir(mode=0o1777, exist_ok=True)
    # A task that waits for the held one is ended by its time, and not tried again.
    limits = ("-process.time=60s", "-process.errorStrategy=terminate")
    with devices(held, free), (LOCKS / held).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = stub(tmp_path, f"{held},{free}", "--gpus", "1", *limits)
        assert run.code == 0, run.output
        assert (LOCKS / free).exists()
    logs = [path.read_text() for path in (tmp_path / "work").glob("*/*/.command.log")]
    assert logs and not [text for text in logs if "waiting for a GPU" in text]


def test_the_container_of_a_gpu_task_is_told_its_device(tmp_path: Path) -> None:
    device, calls = f"GPU-{tmp_path.name}", tmp_path / "calls"
    with devices(device):
        path = f"{STAND_INS}:{os.environ['PATH']}"
        changes = {"PATH": path, "VIRNUCPRO_TEST_CALLS": str(calls)}
        run = stub(tmp_path, device, "--gpus", "1", profile="test,docker", **changes)
    assert run.code == 0, run.output
    runs = [words for words in map(json.loads, calls.read_text().splitlines()) if words[0] == "run"]
    told = [words[words.index("--gpus") + 1] for words in runs if "--gpus" in words]
    assert told == [f"device={device}"] * 2
    assert len(runs) > 2
