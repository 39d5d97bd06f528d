"""What comes of a worker that dies at a moment that no test can choose: torch tells of it, or a connection breaks."""

from __future__ import annotations

import pytest

from virnucpro.data import lost_workers
from virnucpro.data.lost_workers import ending_with_loaders, reporting_lost_workers
from virnucpro.errors import DataError, TryAgainError

KILLED = "DataLoader worker (pid 19492) is killed by signal: Killed. "
LOST = [
    RuntimeError(KILLED),
    ConnectionResetError(104, "Connection reset by peer"),
    ConnectionRefusedError(),
    EOFError(),
]


@pytest.mark.parametrize("error", LOST, ids=repr)
def test_a_lost_worker_is_tried_again(error: Exception) -> None:
    with pytest.raises(TryAgainError, match="data worker"), ending_with_loaders():
        raise error


@pytest.mark.parametrize("error", [RuntimeError("other"), EOFError("half of a file"), BrokenPipeError()], ids=repr)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, reporting_lost_workers():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("first", [ConnectionResetError(), DataError("bad"), KeyboardInterrupt()], ids=repr)
def test_a_worker_that_is_told_of_while_all_are_given_up_changes_nothing(
    first: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's handler raises between any two lines, those that kill the workers among them."""
    told = []

    def told_of_twice(kind: type) -> None:
        told.append(kind)
        if len(told) < 3:
            raise RuntimeError(KILLED)

    monkeypatch.setattr(lost_workers, "kill_left", told_of_twice)
    expected = TryAgainError if isinstance(first, ConnectionResetError) else type(first)
    with pytest.raises(expected), ending_with_loaders():
        raise first
    assert len(told) >= 3
