"""The kernel's locks between real processes: one is first, the others wait for it, and a kill leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from virnucpro.locks import first_of_all, take

BIN = Path(__file__).parents[1] / "bin"
#: Says when it has entered, and leaves once its input ends.
INSIDE = """
import sys
from pathlib import Path
from virnucpro.locks import first_of_all
with first_of_all(Path(sys.argv[1]), float(sys.argv[2])):
    print("entered", flush=True)
    sys.stdin.read()
"""


@contextmanager
def inside(lock: Path, most_seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    """A process that enters as soon as it can."""
    process = subprocess.Popen(
        [sys.executable, "-c", INSIDE, str(lock), str(most_seconds)],
        env={**os.environ, "PYTHONPATH": str(BIN)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        with process:
            process.kill()


def entered(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "entered\n"


def test_one_is_first_and_all_that_waited_enter_together(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with inside(lock) as first, inside(lock) as second, inside(lock) as third:
        # Whichever of the three is first, it is alone.
        waiting = [process for process in (first, second, third) if not holds(process, lock)]
        (holder,) = {first, second, third} - set(waiting)
        assert entered(holder)
        assert len(waiting) == 2
        time.sleep(0.5)
        assert not take_now(lock)
        assert holder.stdin is not None
        holder.stdin.close()
        assert [entered(process) for process in waiting] == [True, True]


def holds(process: subprocess.Popen[str], lock: Path) -> bool:
    """Whether the lock is this process's, by the kernel's own list, once it is anyone's."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if lock.exists():
            number = lock.stat().st_ino
            holders = [
                line.split()[4]
                for line in Path("/proc/locks").read_text().splitlines()
                if line.split()[1] == "FLOCK" and line.split()[5].endswith(f":{number}")
            ]
            if holders:
                return str(process.pid) in holders
        time.sleep(0.05)
    raise AssertionError("nobody holds the lock")


def take_now(lock: Path) -> bool:
    with lock.open("r+") as file:
        return take(file)


def test_a_killed_holder_lets_the_next_in(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with inside(lock) as first:
        assert entered(first)
        with inside(lock) as second:
            os.kill(first.pid, signal.SIGKILL)
            assert entered(second)
    assert take_now(lock)


def test_a_holder_that_never_leaves_is_not_waited_for_longer_than_told(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with inside(lock) as first:
        assert entered(first)
        begun = time.monotonic()
        with first_of_all(lock, 0.5):
            assert 0.4 < time.monotonic() - begun < 10


def test_where_no_file_can_be_made_nobody_waits(tmp_path: Path) -> None:
    with first_of_all(tmp_path / "gone" / "lock", 60):
        assert not (tmp_path / "gone").exists()


def test_where_there_are_no_locks_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with first_of_all(tmp_path / "lock", 60):
        assert (tmp_path / "lock").exists()


def test_what_goes_wrong_inside_is_raised_and_the_lock_free(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="inside"), first_of_all(tmp_path / "lock", 60):
        raise OSError("inside")
    assert take_now(tmp_path / "lock")
