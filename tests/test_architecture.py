"""docs/architecture.md against the tree: what it names is there, and its picture and list show all there is."""

from __future__ import annotations

import re
from pathlib import Path

from test_import_rules import ALLOWED, PACKAGE, ROOT

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "architecture.md").read_text()


def test_what_is_named_is_there() -> None:
    named = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|nf|json|config))`", PAGE)) | set(re.findall(r"`(\w+/\w+)`", PAGE))
    handed_over = {"model.json", "split_summary.json", "summary.json", "run_summary.json"}
    assert len(named) > 20
    assert [
        name for name in sorted(named - handed_over) if not any((root / name).exists() for root in (PROJECT, PACKAGE))
    ] == []


def test_modules_and_names_in_them_are_there() -> None:
    for room, name in re.findall(r"`(\w+)\.((?!py|nf|json|parquet|config)\w+)`", PAGE):
        path = PACKAGE / room
        sources = "".join(each.read_text() for each in path.rglob("*.py")) if path.is_dir() else ""
        sources += path.with_suffix(".py").read_text() if path.with_suffix(".py").exists() else ""
        assert (path / f"{name}.py").exists() or re.search(rf"\b(def|class) {name}\b", sources), f"{room}.{name}"


def test_every_process_and_every_room_has_its_place() -> None:
    processes = re.findall(r"^process (\w+)", "".join(p.read_text() for p in PROJECT.glob("modules/*/main.nf")), re.M)
    assert all(name in PAGE for name in processes if name != "FETCH_MODEL")
    listed = PAGE.split("is the package:\n")[1].split("Imports point")[0]
    assert set(ALLOWED) - ROOT - {"__init__", "__main__"} <= set(re.findall(r"\b\w+\b", listed))
