"""The processes of a split: none for a small input, otherwise one for each core, fed through shared memory."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final, Self, TypeVar

from virnucpro import unfinished
from virnucpro.children import TiedForkContext, end_with_parent, standstill
from virnucpro.errors import TryAgainError
from virnucpro.machine import usable_cores

Result = TypeVar("Result")
#: A block of bytes as a task gets it: itself, or its slot in shared memory and its length.
Payload = bytes | tuple[int, int]

MAX_PROCESSES: Final = 8
#: Free memory that a process keeps for its next block: fresh memory costs more than most steps over it.
KEPT_BYTES: Final = 64 << 20
#: Larger pieces of memory are mapped one by one and given back at once (the most that glibc takes).
MAPPED_BYTES: Final = 32 << 20
#: Names of these in malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_slots: list[mmap.mmap] = []


class Workers:
    """Runs tasks at once in this process, and after ``fork`` in processes of their own.

    Args:
        slot_bytes: size of a slot in shared memory; a larger payload travels through a pipe.
        most: processes at most, one for each core unless given.
    """

    def __init__(self, slot_bytes: int, most: int | None = None) -> None:
        self._most = min(most or MAX_PROCESSES, MAX_PROCESSES)
        self._slot_bytes = slot_bytes
        self._slots: list[mmap.mmap] = []
        self._free: list[int] = []
        self._executor: ProcessPoolExecutor | None = None
        self.processes = 1

    def fork(self) -> None:
        """Start the processes; call it before anything here starts threads."""
        if self._executor is not None:
            return
        count = min(self._most, usable_cores())
        self._slots = [mmap.mmap(-1, self._slot_bytes) for _ in range(2 * count)]
        self._free = list(range(len(self._slots)))
        self.processes = count
        self._executor = ProcessPoolExecutor(
            count,
            mp_context=TiedForkContext(),
            initializer=_enter_worker,
            initargs=(os.getpid(), self._slots),
        )

    def full(self, in_flight: int) -> bool:
        """Whether to collect a result before the next ``put`` or ``submit``."""
        return not self._free or in_flight >= len(self._slots)

    def put(self, block: bytes) -> Payload:
        """Place a block where a task can read it; ``release`` what this returns once the task is done."""
        if not self._free or len(block) > self._slot_bytes:
            return block
        slot = self._free.pop()
        self._slots[slot][: len(block)] = block
        return slot, len(block)

    def release(self, payload: object) -> None:
        """Make the slot of a payload free again, if it has one."""
        if isinstance(payload, tuple):
            self._free.append(payload[0])

    def submit(self, task: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Run ``task(*arguments)``, which must be a function of a module."""
        if self._executor is not None:
            return self._executor.submit(task, *arguments)
        done: Future[Result] = Future()
        done.set_result(task(*arguments))
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        for slot in self._slots:
            slot.close()
        if isinstance(error, BrokenProcessPool):
            if stood := standstill():
                raise TryAgainError(f"split: {stood}") from error
            raise TryAgainError(
                "a process of the split was killed, most likely for lack of memory; give it more memory"
            ) from error


def take(payload: Payload) -> bytes:
    """Return the block of a payload, in the task."""
    if isinstance(payload, bytes):
        return payload
    slot, length = payload
    return _slots[slot][:length]


def _enter_worker(parent: int, slots: list[mmap.mmap]) -> None:
    _slots[:] = slots
    unfinished.let_go()
    _keep_memory()
    end_with_parent(parent)


def _keep_memory() -> None:
    """Let malloc keep what is freed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
