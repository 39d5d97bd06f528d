"""docs/reliability.md tells the faults that tests are marked with, and each of them is a whole row."""

from __future__ import annotations

from reliability import PAGE, page, registered


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "make test-faults writes it anew"


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
