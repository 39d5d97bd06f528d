"""The corpus, and changes of it by hypothesis: what foreign bytes may do to a reader is to be refused in a line."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.feed import mutated
from fuzz.targets import CORPUS, TARGETS, ending
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = [path for name in TARGETS for path in sorted((CORPUS / name).iterdir())]


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_corpus(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_with_changes(name: str) -> None:
    seeds = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]

    @settings(max_examples=20 if name == "merge" else 100)
    @given(rng=st.randoms(use_true_random=False))
    def try_one(rng: object) -> None:
        TARGETS[name](mutated(seeds, rng))  # type: ignore[arg-type]

    try_one()


def test_what_is_no_end_for_foreign_bytes_is_found() -> None:
    def fail(error: BaseException) -> None:
        raise error

    with pytest.raises(ZeroDivisionError):
        ending(lambda: 1 // 0)
    with pytest.raises(AssertionError, match="75"):
        ending(lambda: fail(MemoryError()))
    with pytest.raises(AssertionError, match="74"):
        ending(lambda: fail(OSError(28, "No space left on device")))
