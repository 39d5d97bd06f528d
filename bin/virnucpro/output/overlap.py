"""Reading and writing beside the work: Parquet is decoded on one thread and encoded on another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Generic, Self, TypeVar

Item = TypeVar("Item")

_END: Final[Any] = object()


class Prefetched(Generic[Item]):
    """An iterable whose next item is read on a thread while one is used; its exception comes out in its place."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._thread = ThreadPoolExecutor(1, "read-ahead")
        self._next = self._thread.submit(next, self._items, _END)

    def __iter__(self) -> Iterator[Item]:
        while (item := self._next.result()) is not _END:
            self._next = self._thread.submit(next, self._items, _END)
            yield item

    def close(self) -> None:
        """End the thread, read to the end or not."""
        self._thread.shutdown(cancel_futures=True)


class Behind(Generic[Item]):
    """Hands items to ``consume`` on a thread of its own, at most ``depth`` waiting; its exception comes out here."""

    def __init__(self, consume: Callable[[Item], object], depth: int = 2) -> None:
        self._consume = consume
        self._depth = depth
        self._thread = ThreadPoolExecutor(1, "write-behind")
        self._waiting: deque[Future[object]] = deque()

    def put(self, item: Item) -> None:
        """Hand over one item; raises what consuming an earlier one raised."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) > self._depth):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._consume, item))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        while kind is None and self._waiting:
            self._waiting.popleft().result()
