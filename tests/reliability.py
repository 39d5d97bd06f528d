"""docs/reliability.md: the faults that tests put into the real thing, read off their ``faults`` marks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"

_HEAD = """# What happens when something goes wrong
Every fault below is put into the real thing by a test, which then looks at the exit code, the message, what is left
and, where there are results, at each byte of them, as `verify.py` does. The table is made from the tests when all of
them have passed: `make test-faults`. Those with a † run there alone, the others in every `make test` as well.

What `tried again` means, and the exit codes: [troubleshooting.md](troubleshooting.md#exit-codes).

| fault | where | ends with | test |
|---|---|---|---|
"""
_TAIL = """
Not looked at here: a real lost device and real lack of memory on a GPU (raised in its place), a clock that jumps under
Nextflow itself, and a memory limit so low that a library ends the process with a code of its own before a program of
ours can say anything.
"""


@dataclass(frozen=True, order=True)
class Fault:
    """A fault, where it is put, how that ends, and the test that looks."""

    where: str
    fault: str
    end: str
    test: str
    only_long: bool


def registered() -> list[Fault]:
    """All faults that tests are marked with."""
    return sorted(fault for path in TESTS.rglob("test_*.py") for fault in _in_file(path))


def page() -> str:
    """The whole page."""
    rows = (
        f"| {each.fault} | {each.where} | {each.end} | `{each.test}`{' †' if each.only_long else ''} |\n"
        for each in registered()
    )
    return _HEAD + "".join(rows) + _TAIL


def _in_file(path: Path) -> Iterator[Fault]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            marks = {name: arguments for name, arguments in map(_mark, node.decorator_list) if name}
            if "faults" in marks:
                fault, where, end = marks["faults"]
                test = f"{path.relative_to(TESTS).as_posix()}::{node.name}"
                yield Fault(where, fault, end, test, "faults_long" in marks)


def _mark(decorator: ast.expr) -> tuple[str, list[str]]:
    """Name and arguments of a pytest mark that has none but texts."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = ast.unparse(called).removeprefix("pytest.mark.")
    if name not in ("faults", "faults_long"):
        return "", []
    return name, [ast.literal_eval(each) for each in decorator.args] if isinstance(decorator, ast.Call) else []
