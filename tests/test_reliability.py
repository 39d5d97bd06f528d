"""docs/reliability.md tells what a run saw of each fault that a test is marked with."""

from __future__ import annotations

from pathlib import Path

import pytest
import reliability
from reliability import PAGE, Observer, page, recorded, registered

ANEW = "make test-faults, or pytest --reliability with the test alone, makes it anew"


def test_the_page_is_what_was_seen() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), ANEW


def test_every_fault_was_seen_to_end_as_its_mark_says_now() -> None:
    seen = recorded()
    assert {test: each.fault for test, each in seen.items()} == {each.test: each for each in registered()}, ANEW
    assert not {test: str(each) for test, each in seen.items() if set(each.cases.values()) != {"passed"}}, ANEW


def test_a_run_keeps_what_it_saw_and_what_others_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure and a skip are told, but not the skip of what was seen; a case that fails in its teardown has failed,
    whatever its call did."""
    monkeypatch.setattr(reliability, "RECORD", tmp_path / "record.json")
    monkeypatch.setattr(reliability, "PAGE", tmp_path / "page.md")
    first, second = registered()[:2]
    for test, outcomes in (
        (first.test, [("[a]", "call", "passed"), ("[b]", "setup", "skipped")]),
        (second.test, [("", "call", "passed"), ("", "teardown", "failed")]),
        (first.test, [("[c]", "call", "passed")]),
        (first.test, [("[c]", "setup", "skipped")]),
    ):
        observer = Observer()
        for case, when, outcome in [*outcomes, ("[a]", "setup", "passed")]:
            nodeid = f"tests/{test}{case}"
            report = pytest.TestReport(nodeid, ("", 0, ""), {}, outcome, None, when)  # type: ignore[arg-type]
            observer.pytest_runtest_logreport(report)
        observer.pytest_sessionfinish()
    assert {test: str(seen) for test, seen in recorded().items()} == {
        first.test: "2 passed, 1 skipped",
        second.test: "1 failed",
    }
    rows = [line for line in (tmp_path / "page.md").read_text(encoding="utf-8").splitlines() if "::" in line]
    assert [row.split(" | ")[3] for row in rows] == ["2 passed, 1 skipped", "1 failed"]


def test_every_fault_says_where_and_how_it_ends() -> None:
    found = registered()
    assert len(found) > 40
    assert all(
        each.fault and each.where and each.end and "|" not in each.fault + each.where + each.end for each in found
    )
    assert len({each.test for each in found}) == len(found)


def test_the_quick_half_is_the_larger() -> None:
    """Faults that only make test-faults looks at are those that cost minutes."""
    only_long = [each for each in registered() if each.only_long]
    assert 0 < len(only_long) < len(registered()) / 2
