"""What programs that tests start from a string take from modules of ours is there: no linter looks into a string."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).parent
#: Modules of the tests themselves -> the folder that their programs find them in.
HELPERS = {path.stem: path.parent for path in TESTS.rglob("*.py") if not path.stem.startswith(("test_", "conftest"))}


def programs(source: str) -> Iterator[ast.Module]:
    """The strings of a file that are Python and import something."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
            try:
                yield ast.parse(node.value)
            except SyntaxError:
                continue


def missing(program: ast.Module) -> Iterator[str]:
    """What a program takes from a module of ours that has no such thing."""
    modules: dict[str, ModuleType] = {}
    for node in ast.walk(program):
        if isinstance(node, ast.Import):
            modules |= {each.asname or each.name: importlib.import_module(each.name) for each in ours(node)}
        elif isinstance(node, ast.ImportFrom):
            for each in ours(node):
                try:
                    modules[each.asname or each.name] = importlib.import_module(f"{node.module}.{each.name}")
                except ModuleNotFoundError:
                    if not hasattr(importlib.import_module(str(node.module)), each.name):
                        yield f"{node.module}.{each.name}"
    for node in ast.walk(program):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute, ctx=ast.Load()) if name in modules:
                if not hasattr(modules[name], attribute):
                    yield f"{name}.{attribute}"


def ours(node: ast.Import | ast.ImportFrom) -> list[ast.alias]:
    """The names that it imports from modules of ours; all that a module has (`*`) is there."""
    source = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    tops = [(each, (source + each.name).partition(".")[0]) for each in node.names if each.name != "*"]
    return [each for each, top in tops if top == "virnucpro" or top in HELPERS]


def imports_ours(program: ast.Module) -> bool:
    return any(isinstance(node, ast.Import | ast.ImportFrom) and ours(node) for node in ast.walk(program))


FILES = [
    path
    for path in sorted({*TESTS.rglob("test_*.py")} - {Path(__file__)})
    if any(map(imports_ours, programs(path.read_text())))
]


@pytest.fixture(autouse=True)
def helpers_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in {*HELPERS.values()}:
        monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_programs_take_from_our_modules_is_there(path: Path) -> None:
    pytest.importorskip("triton")
    assert [name for program in programs(path.read_text()) for name in missing(program)] == []


def test_what_is_missing_is_seen() -> None:
    program = """
import os, virnucpro.locks as locks
from virnucpro import errors, nowhere
from virnucpro.errors import UsageError, Nothing
errors.gone(os.neither, errors.UsageError, locks.fcntl, UsageError.of_a_class)
locks.set_from_here = locks.lost
"""
    lost = {"virnucpro.nowhere", "virnucpro.errors.Nothing", "errors.gone", "locks.lost"}
    assert {*missing(ast.parse(program))} == lost
