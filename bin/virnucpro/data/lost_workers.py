"""A loader's workers that are gone or silent: the error that says so, and an end that waits for none of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakSet

from torch._C import _remove_worker_pids

from virnucpro.children import TiedSpawnProcess, kill_left, standstill
from virnucpro.errors import TryAgainError

#: How torch begins the message where a worker is gone or silent; it has no class of its own for either.
_LOST_WORKER: Final = ("DataLoader worker (pid", "DataLoader timed out")
#: The threads that fill a queue of multiprocessing, as it calls them; they end once it is closed.
_FEEDER: Final = "QueueFeederThread"
_FEEDER_SECONDS: Final = 5

_started: Final[WeakSet[Any]] = WeakSet()


def remember(started: Iterator[Any]) -> None:
    """Take note of torch's iterator over a loader, whose workers are running."""
    _started.add(started)


@contextmanager
def reporting_lost_workers() -> Iterator[None]:
    """Turn torch's error into ours. It comes wherever the main thread is when a worker dies, not only in ``next``.

    The workers of all loaders are then killed, and nothing waits for them any more.

    Raises:
        TryAgainError: a worker was lost.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if not _tells_of_a_lost_worker(error):
            raise
        _give_up_all()
        remedy = standstill() or "a data worker died or hangs: give the task more memory"
        raise TryAgainError(f"{str(error) or 'a data worker sent half of a batch'}; {remedy}") from error


@contextmanager
def ending_with_loaders() -> Iterator[None]:
    """The whole of a task that loads: no worker outlives it, and whatever ended it, it waits for none.

    Raises:
        TryAgainError: a worker was lost.
    """
    try:
        with reporting_lost_workers():
            yield
            # An error on the way, as of a batch that did not fit, may keep a loader alive that was read to its end.
            for started in list(_started):
                if not getattr(started, "_shutdown", True):
                    started._shutdown_workers()
    except BaseException:
        _give_up_all()
        raise
    finally:
        # One that were cut short by the end of the process would leave semaphores, of which Python then warns.
        for thread in threading.enumerate():
            if thread.name == _FEEDER:
                thread.join(_FEEDER_SECONDS)


def _tells_of_a_lost_worker(error: BaseException) -> bool:
    """Torch's words for one, or the end of a connection to one, which comes first where it was handing a batch over."""
    if isinstance(error, RuntimeError):
        return str(error).startswith(_LOST_WORKER)
    return isinstance(error, ConnectionResetError | ConnectionRefusedError) or (
        isinstance(error, EOFError) and not error.args
    )


def _give_up_all() -> None:
    while True:
        try:
            for started in list(_started):
                _give_up(started)
            # And those of a loader that was interrupted while it started them.
            kill_left(TiedSpawnProcess)
            return
        except RuntimeError as error:
            # Torch tells of a worker once, wherever this process is then.
            if not _tells_of_a_lost_worker(error):
                raise


def _give_up(started: Any) -> None:
    """Kill what is left of the workers, and keep torch from shutting them down, and so from waiting for them.

    One that is gone may have held the lock of the queue, or have sent half of a batch.
    """
    if getattr(started, "_shutdown", True):
        return
    started._shutdown = True
    # Before they are killed: each would be reported as well, wherever this process is then.
    if started._worker_pids_set:
        _remove_worker_pids(id(started))
        started._worker_pids_set = False
    for worker in started._workers:
        worker.kill()
    for queue in started._index_queues:
        queue.cancel_join_thread()
        queue.close()
    if hasattr(started, "_pin_memory_thread_done_event"):
        started._pin_memory_thread_done_event.set()
