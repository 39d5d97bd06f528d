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
    """Hands items to ``consume`` on a thread of its own; its exception comes out here.

    Args:
        consume: called with one item at a time.
        depth: items that may wait, besides the one just handed over.
        max_bytes: what all items not yet consumed may hold together; one alone may hold more. None: no bound.
        weigh: bytes of an item; needed with ``max_bytes``.
    """

    def __init__(
        self,
        consume: Callable[[Item], object],
        depth: int = 2,
        max_bytes: int | None = None,
        weigh: Callable[[Item], int] = lambda _: 0,
    ) -> None:
        self._consume = consume
        self._depth = depth
        self._max_bytes = max_bytes
        self._weigh = weigh
        self._thread = ThreadPoolExecutor(1, "write-behind")
        self._waiting: deque[tuple[Future[object], int]] = deque()

    def put(self, item: Item) -> None:
        """Hand over one item; raises what consuming an earlier one raised."""
        weight = self._weigh(item)
        while self._waiting and (self._waiting[0][0].done() or self._is_full(weight)):
            self._waiting.popleft()[0].result()
        self._waiting.append((self._thread.submit(self._consume, item), weight))

    def _is_full(self, weight: int) -> bool:
        held = weight + sum(each for _, each in self._waiting)
        return len(self._waiting) > self._depth or (self._max_bytes is not None and held > self._max_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        while kind is None and self._waiting:
            self._waiting.popleft()[0].result()
