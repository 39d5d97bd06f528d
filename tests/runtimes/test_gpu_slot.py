"""One GPU per task on a host: the lock in conf/gpu_slot.sh, on pretend devices."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_locks import LOCKS, remove_locks

SCRIPT = Path(__file__).parents[2] / "conf" / "gpu_slot.sh"
SLOTS = 8
TASKS = 200
CONCURRENT = 14

# A holder takes a second lock of its own, so that two holders of one device are seen by the kernel, not by timing.
# It runs as a child of the wrapper, as a task does, and may outlive it.
TASK = """
set -eu
. "$1" local
bash -c '
    exec 5<>"$1/$CUDA_VISIBLE_DEVICES"
    flock --nonblock 5 || echo "two holders of $CUDA_VISIBLE_DEVICES" >>"$1/violations"
    echo "$CUDA_VISIBLE_DEVICES" >>"$1/taken"
    sleep "$2"
' holder "$2" "$3"
exit $? # not the last command, which bash would run in the wrapper's own process
"""


@pytest.fixture
def devices() -> Iterator[list[str]]:
    """Names of pretend devices that no other test or user has locked; their lock files go afterwards."""
    prefix = uuid.uuid4().hex[:12]
    names = [f"GPU-{prefix}-{index}" for index in range(SLOTS)]
    yield names
    remove_locks(*names)


def start(task: str, *arguments: str, visible: str | None, path: str | None = None) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "CUDA_"))}
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.Popen(
        ["bash", "-c", task, "task", str(SCRIPT), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out.strip(), err.strip()


def take(executor: str, visible: str | None, path: str | None = None) -> tuple[int, str, str]:
    """Source the script and print what it exported."""
    script = f'set -eu; . "$1" {executor}; echo "$CUDA_VISIBLE_DEVICES $VIRNUCPRO_GPU"'
    return finish(start(script, visible=visible, path=path))


def kill_something(process: subprocess.Popen[str], rng: random.Random) -> None:
    """Kill a task as a user, a scheduler or the kernel would: its wrapper, or its whole tree."""
    how = rng.choice(["wrapper", "tree", "term"])
    try:
        if how == "wrapper":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL if how == "tree" else signal.SIGTERM)
    except ProcessLookupError:
        pass


@pytest.mark.faults("tasks killed at random", "the GPUs' locks", "no two holders, no GPU lost")
def test_no_two_tasks_hold_a_gpu_and_no_slot_is_lost(tmp_path: Path, devices: list[str]) -> None:
    rng = random.Random(6)
    running: list[subprocess.Popen[str]] = []
    started = killed = 0
    while started < TASKS or running:
        running = [process for process in running if process.poll() is None]
        while len(running) < CONCURRENT and started < TASKS:
            seconds = f"{rng.uniform(0.05, 0.4):.3f}"
            running.append(start(TASK, str(tmp_path), seconds, visible=",".join(rng.sample(devices, SLOTS))))
            started += 1
        if running and rng.random() < 0.3:
            kill_something(rng.choice(running), rng)
            killed += 1
        time.sleep(0.03)
    assert killed > 20
    assert not (tmp_path / "violations").exists(), (tmp_path / "violations").read_text()
    taken = (tmp_path / "taken").read_text().split()
    assert set(taken) == set(devices)

    time.sleep(0.5)  # children that outlived their wrapper
    holders = [start(TASK, str(tmp_path), "1", visible=",".join(devices)) for _ in devices]
    assert [finish(holder)[0] for holder in holders] == [0] * SLOTS
    last = (tmp_path / "taken").read_text().split()[len(taken) :]
    assert sorted(last) == sorted(devices), "a slot was lost"
    assert not (tmp_path / "violations").exists()


def test_a_child_that_outlives_its_killed_wrapper_keeps_the_gpu(tmp_path: Path, devices: list[str]) -> None:
    first = start(TASK, str(tmp_path), "1.5", visible=devices[0])
    while not (tmp_path / "taken").exists():
        time.sleep(0.02)
    first.kill()
    begin = time.monotonic()
    second = start(TASK, str(tmp_path), "0", visible=devices[0])
    code, _, err = finish(second)
    assert code == 0 and "waiting for a GPU" in err
    assert time.monotonic() - begin > 0.8
    assert not (tmp_path / "violations").exists()


def test_a_waiting_task_can_be_stopped(tmp_path: Path, devices: list[str]) -> None:
    holder = start(TASK, str(tmp_path), "3", visible=devices[0])
    while not (tmp_path / "taken").exists():
        time.sleep(0.02)
    waiting = start(TASK, str(tmp_path), "0", visible=devices[0])
    time.sleep(0.3)
    waiting.terminate()
    assert finish(waiting)[0] == 143
    os.killpg(holder.pid, signal.SIGKILL)
    finish(holder)


def test_a_schedulers_choice_is_obeyed_without_a_lock(tmp_path: Path, devices: list[str]) -> None:
    holder = start(TASK, str(tmp_path), "3", visible=devices[0])
    while not (tmp_path / "taken").exists():
        time.sleep(0.02)
    assert take("slurm", devices[0]) == (0, f"{devices[0]} {devices[0]}", "")
    os.killpg(holder.pid, signal.SIGKILL)
    finish(holder)


@pytest.fixture
def nvidia_smi(tmp_path: Path, devices: list[str]) -> str:
    """A stand-in for nvidia-smi that lists two pretend devices; returns its folder."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\nprintf '0, {devices[0]}\\n1, {devices[1]}\\n'\n")
    tool.chmod(0o755)
    return str(tool.parent)


def test_devices_are_named_by_uuid(devices: list[str], nvidia_smi: str) -> None:
    assert take("local", "1", nvidia_smi)[1] == f"{devices[1]} {devices[1]}"
    assert take("local", None, nvidia_smi)[1] == f"{devices[0]} {devices[0]}"
    assert take("slurm", "1", nvidia_smi)[1] == f"1 {devices[1]}"


def test_a_job_with_several_devices_uses_one_of_them(devices: list[str], nvidia_smi: str) -> None:
    assert take("slurm", "1,0", nvidia_smi)[1] == f"{devices[1]} {devices[1]}"


@pytest.mark.parametrize(("executor", "expected"), [("local", 2), ("slurm", 75), ("k8s", 75)])
@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "-1,0", None])
def test_no_gpu_ends_the_task_at_once(executor: str, expected: int, visible: str | None, tmp_path: Path) -> None:
    broken = tmp_path / "nvidia-smi"
    broken.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed: no driver'\nexit 9\n")
    broken.chmod(0o755)
    code, _, err = take(executor, visible, str(tmp_path))
    assert code == expected
    assert len(err.splitlines()) == 1 and "no GPU to be seen" in err and "--gpus 0" in err


def plant(kind: str, path: Path, target: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)


@pytest.mark.faults(
    "a pipe, link or folder in a lock's place", "a GPU's lock", "neither waited for nor followed: another GPU, or 74"
)
@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_another_user_put_in_a_locks_place_is_neither_waited_for_nor_followed(
    kind: str, devices: list[str], tmp_path: Path
) -> None:
    LOCKS.mkdir(mode=0o1777, exist_ok=True)
    foreign = tmp_path / "foreign"
    foreign.write_text("of another")
    os.utime(foreign, (1, 1))
    plant(kind, LOCKS / devices[0], foreign)
    try:
        alone = start(TASK, str(tmp_path), "0", visible=devices[0])
        _, told = alone.communicate(timeout=30)
        assert (alone.returncode, "no plain files; remove it" in told) == (74, True), told
        other = start(TASK, str(tmp_path), "0", visible=",".join(devices[:2]))
        assert other.communicate(timeout=30)[1] == "" and other.returncode == 0
        assert (tmp_path / "taken").read_text().split() == [devices[1]]
        assert foreign.stat().st_mtime == 1
    finally:
        path = LOCKS / devices[0]
        path.rmdir() if kind == "folder" else path.unlink()


def test_who_waits_is_told_who_holds_the_device(devices: list[str], tmp_path: Path) -> None:
    LOCKS.mkdir(mode=0o1777, exist_ok=True)
    lock = LOCKS / devices[0]
    lock.touch()
    holder = subprocess.Popen(["flock", lock, "sleep", "60"], start_new_session=True)
    while subprocess.run(["flock", "--nonblock", lock, "true"], check=False).returncode == 0:
        time.sleep(0.05)
    waiting = start(TASK, str(tmp_path), "0", visible=devices[0])
    assert waiting.stderr is not None
    told = waiting.stderr.readline()
    assert f"waiting for a GPU: {devices[0]} are all in use, by process" in told and f"{holder.pid} (" in told
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    waiting.terminate()
    waiting.communicate(timeout=30)


def test_a_lock_of_another_user_keeps_the_time_that_it_has(devices: list[str], tmp_path: Path) -> None:
    """One of this user's own is renewed: cleaners of /tmp go by it."""
    if os.geteuid():
        pytest.skip("only root can make a file of another user")
    LOCKS.mkdir(mode=0o1777, exist_ok=True)
    for name, owner in ((devices[0], 65534), (devices[1], os.geteuid())):
        (LOCKS / name).touch(0o666)
        os.utime(LOCKS / name, (1, 1))
        os.chown(LOCKS / name, owner, -1)
        assert take("local", name)[0] == 0
    assert (LOCKS / devices[0]).stat().st_mtime == 1
    assert (LOCKS / devices[1]).stat().st_mtime > 1


@pytest.mark.faults("SIGKILL, SIGTERM, SIGINT, SIGUSR2 of the task that holds it", "a GPU's lock", "free")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2], ids=lambda s: s.name)
def test_a_gpu_is_free_once_all_of_its_task_is_killed(sent: signal.Signals, devices: list[str], tmp_path: Path) -> None:
    holder = start(TASK, str(tmp_path), "60", visible=devices[0])
    while not (tmp_path / "taken").exists():
        time.sleep(0.02)
    busy = subprocess.run(["flock", "--nonblock", LOCKS / devices[0], "true"], check=False)
    assert busy.returncode == 1
    os.killpg(holder.pid, sent)
    finish(holder)
    free = subprocess.run(["flock", "--timeout", "10", LOCKS / devices[0], "true"], check=False)
    assert free.returncode == 0
