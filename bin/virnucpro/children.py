"""Processes that end with the one that started them, and are ended where something has stopped them for long."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.context import ForkContext, ForkProcess, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

from virnucpro.interrupts import starting_out_of_reach

#: Seconds after which a child that is stopped, as by SIGSTOP, is killed. While this process is stopped as well, as
#: where a scheduler suspends the whole job, they do not count.
STOPPED_SECONDS: Final = 20
POLL_SECONDS: Final = 0.5

#: prctl(2): the signal that the kernel sends to this process when the thread that started it ends.
_PR_SET_PDEATHSIG: Final = 1

_lock = threading.Lock()
_started: Final[WeakSet[BaseProcess]] = WeakSet()
_watched: set[int] = set()
_ended: list[int] = []


def end_with_parent(parent: int, *, at_once: bool = True) -> None:
    """End this process when the one that started it is gone, however it went; now, where that is so already.

    Args:
        parent: the process that started this one, as it calls itself.
        at_once: whether it did so in its main thread. The kernel then sees to it, although this process be stopped.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None and at_once:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_leave_with, args=(parent,), name="parent", daemon=True).start()


def end_with_task() -> None:
    """End this program with the shell of its task, if it is part of one that ``conf/task_guard.sh`` watches.

    The task's wrapper would wait for a program whose shell was killed, to its end.
    """
    task = os.environ.get("VIRNUCPRO_TASK")
    if not task:
        return
    parent = os.getppid()
    end_with_parent(parent)
    # Where the shell was gone before: an orphan's new parent is no part of the task.
    try:
        of_the_task = f"VIRNUCPRO_TASK={task}".encode() in Path(f"/proc/{parent}/environ").read_bytes()
    except OSError:
        of_the_task = parent != 1
    if not of_the_task:
        os._exit(1)


def standstill() -> str:
    """What to say of the children that were killed because something had stopped them; empty where none was."""
    if not _ended:
        return ""
    pids = ", ".join(map(str, _ended))
    return f"process {pids} was stopped by a signal for {STOPPED_SECONDS} s, and ended; the task can be tried again"


def kill_left(kind: type[BaseProcess] = BaseProcess) -> None:
    """Kill the children of a kind that are still there; those not tied by this module are left alone."""
    for process in list(_started):
        if isinstance(process, kind) and process.is_alive():
            process.kill()


# Before multiprocessing waits for them: what started them may have been interrupted before it gave them any work.
atexit.register(kill_left)


class _Started(BaseProcess):
    """Started where Ctrl-C does not reach it, watched, and known to :func:`kill_left`."""

    def start(self) -> None:
        """Start the process."""
        with starting_out_of_reach():
            super().start()
            _started.add(self)
        _watch(self.pid)


class TiedSpawnProcess(_Started, SpawnProcess):
    """A spawned process that ends with its parent, from before it imports anything of its task."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Read in this order: what ties the process comes before the classes and modules of its task are imported.
        in_main_thread = threading.current_thread() is threading.main_thread()
        return _resume, (_Tie(os.getpid(), in_main_thread), type(self)), self.__dict__


class TiedForkProcess(_Started, ForkProcess):
    """A forked process that is watched; what runs in it calls :func:`end_with_parent`."""


class TiedForkContext(ForkContext):
    """The fork context, with processes that are watched."""

    Process = TiedForkProcess


class _Tie:
    """Ties the process in which it is unpickled."""

    def __init__(self, parent: int, in_main_thread: bool) -> None:
        self._arguments = parent, in_main_thread

    def __reduce__(self) -> tuple[Callable[[int, bool], None], tuple[int, bool]]:
        return _tie, self._arguments


def _tie(parent: int, in_main_thread: bool) -> None:
    end_with_parent(parent, at_once=in_main_thread)


def _resume(_tied: None, kind: type[TiedSpawnProcess]) -> TiedSpawnProcess:
    return kind.__new__(kind)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _watch(pid: int | None) -> None:
    """Look after a child, on a thread that lasts as long as any of them."""
    if pid is None:
        return
    with _lock:
        start = not _watched
        _watched.add(pid)
    if start:
        threading.Thread(target=_end_stopped, name="children", daemon=True).start()


def _end_stopped() -> None:
    stopped: dict[int, int] = {}
    while True:
        with _lock:
            states = {pid: state for pid in _watched if (state := _state_of_child(pid))}
            _watched.intersection_update(states)
            if not states:
                return
        # Polls and not a clock: they stand still where this process does.
        stopped = {pid: stopped.get(pid, 0) + 1 for pid, state in states.items() if state == "T"}
        for pid, polls in stopped.items():
            if polls * POLL_SECONDS >= STOPPED_SECONDS and pid not in _ended:
                _ended.append(pid)
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _state_of_child(pid: int) -> str:
    """A letter of ps(1); empty where this is no living child of this process, or the system does not tell."""
    try:
        # The name of the program, in parentheses, may hold anything.
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return state if int(parent) == os.getpid() and state not in "ZX" else ""
