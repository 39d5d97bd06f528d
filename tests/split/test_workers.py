"""How many processes a split takes."""

from __future__ import annotations

import os

import pytest

from virnucpro.split import workers
from virnucpro.split.workers import Workers


@pytest.mark.parametrize(("cores", "asked", "started"), [(64, None, 8), (64, 3, 3), (2, 4, 2), (64, 20, 8), (4, 1, 1)])
def test_no_more_than_asked_for_and_than_there_are_cores(
    cores: int, asked: int | None, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "usable_cores", lambda: cores)
    with Workers(1024, asked) as pool:
        pool.fork()
        assert pool.processes == started
        futures = [pool.submit(os.getpid) for _ in range(started)]
        assert os.getpid() not in {future.result() for future in futures}
