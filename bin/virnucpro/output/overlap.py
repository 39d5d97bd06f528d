"""Reading and writing beside the work: Parquet is decoded on one thread and encoded on another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, Self, TypeVar

Item = TypeVar("Item")

#: Seconds after which a waiting thread looks whether the other side has given up.
_LOOK_SECONDS: Final = 0.1


class Prefetched(Generic[Item]):
    """An iterable read ahead by ``depth`` items on a thread of its own; its exception comes out in its place."""

    def __init__(self, items: Iterable[Item], depth: int = 1) -> None:
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), name="read-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    def close(self) -> None:
        """End the thread, read to the end or not."""
        self._stopped.set()
        self._thread.join()

    def _run(self, items: Iterable[Item]) -> None:
        try:
            for item in items:
                if not self._put((item, None)):
                    return
            self._put((None, None))
        # Whatever reading raises belongs to the thread that asked for the items.
        except BaseException as error:
            self._put((None, error))

    def _put(self, entry: tuple[Item | None, BaseException | None]) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(entry, timeout=_LOOK_SECONDS)
                return True
            except queue.Full:
                continue
        return False


class Behind(Generic[Item]):
    """Hands items to ``consume`` on a thread of its own, at most ``depth`` waiting; its exception comes out here."""

    def __init__(self, consume: Callable[[Item], object], depth: int = 2) -> None:
        self._consume = consume
        self._queue: queue.Queue[Item | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="write-behind", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over one item; raises what consuming an earlier one raised."""
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue
            try:
                self._consume(item)
            except BaseException as error:
                self._error = error
