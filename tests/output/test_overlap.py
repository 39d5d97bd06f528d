"""Writing beside the work: what waits is bounded, by count and in bytes."""

from __future__ import annotations

import threading

import pytest

from virnucpro.output.overlap import Behind


@pytest.mark.parametrize(
    ("sizes", "depth", "max_bytes", "most"),
    [
        ([40] * 20, 8, 100, 80),
        ([10, 90, 10, 90, 60, 60], 8, 100, 100),
        ([40] * 20, 8, None, 400),
        ([40] * 20, 1, 1000, 120),
        ([300, 10, 300, 300], 8, 100, 300),
    ],
)
def test_what_waits_is_bounded(sizes: list[int], depth: int, max_bytes: int | None, most: int) -> None:
    held = peak = 0
    lock = threading.Lock()
    may_consume = threading.Semaphore(0)
    consumed: list[bytes] = []

    def consume(item: bytes) -> None:
        nonlocal held
        may_consume.acquire()
        with lock:
            held -= len(item)
        consumed.append(item)

    items = [bytes([number]) * size for number, size in enumerate(sizes)]
    with Behind[bytes](consume, depth, max_bytes, len) as behind:

        def put_all() -> None:
            nonlocal held, peak
            for item in items:
                behind.put(item)
                with lock:
                    held += len(item)
                    peak = max(peak, held)

        producer = threading.Thread(target=put_all)
        producer.start()
        while producer.is_alive():
            producer.join(0.02)
            may_consume.release()
        for _ in items:
            may_consume.release()
    assert consumed == items
    assert peak <= most
