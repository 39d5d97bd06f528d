"""Work done by forked processes, a piece of it in each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, NoReturn

from virnucpro.children import end_with_parent
from virnucpro.plain_text import visible


class Forks(Executor):
    """Calls each function that it is given in a process of its own, so many at a time; what one returns is lost.

    For a process without other threads that could hold a lock while it is copied, and whose CUDA was not started.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._running: set[int] = set()
        self.failed = 0

    def submit(self, function: Callable[[], Any], /) -> Future[None]:  # type: ignore[override]  # without arguments
        """Start it, once another has ended where there are as many as there may be; the future is done already."""
        while len(self._running) >= self._processes:
            self._wait_for_one()
        parent, child = os.getpid(), os.fork()
        if not child:
            _call_and_end(parent, function)
        self._running.add(child)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait until all have ended."""
        while self._running:
            self._wait_for_one()

    def _wait_for_one(self) -> None:
        child, status = os.wait()
        if child in self._running:
            self._running.remove(child)
            self.failed += status != 0


def _call_and_end(parent: int, function: Callable[[], Any]) -> NoReturn:
    code = 1
    try:
        end_with_parent(parent)
        function()
        code = 0
    except Exception as error:
        print(visible(f"{type(error).__name__}: {error}"), file=sys.stderr, flush=True)
    finally:
        os._exit(code)
