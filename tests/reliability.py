"""docs/reliability.md: the faults that tests put into the real thing, and what became of each in a run of them.

What a fault is and how it ends is read off a test's ``faults`` mark. ``pytest --reliability`` keeps what it saw of the
tests that it ran in reliability.json, next to what it saw of others before, and makes the page from that.
"""

from __future__ import annotations

import ast
import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
RECORD = TESTS / "reliability.json"
PAGE = TESTS.parent / "docs" / "reliability.md"

_HEAD = """# What happens when something goes wrong
Every fault below is put into the real thing by a test, which then looks at how it ends: the exit code, the message,
what is left. Tests of whole runs (`e2e/test_faults*`) also hold the results to those of a run without a fault, and to
`verify.py`. `make test-faults` runs them all and makes this page of what it saw: how many cases, and how they ended.
Those with a † run there alone, the others in every `make test` as well.

What `tried again` means, and the exit codes: [troubleshooting.md](troubleshooting.md#exit-codes).

| fault | where | ends with | seen | test |
|---|---|---|---|---|
"""
_TAIL = """
## Looked at for longer
- **The merge**: 20,000 changes of its inputs (`MERGE_MUTATIONS=20000 MERGE_SEED=20261126`, of
  `merge/test_merge_mutations.py`): each was refused with 65 or 66, or gave results equal to the last byte. The first
  run of them found one that was neither: a flipped bit in the name of a column of residues ended with a traceback.
- **Readers** (`make fuzz`): foreign bytes for both readers of FASTA, which must agree, for checkpoints, for the records
  that processes hand to each other, and for the merge's inputs. Found and mended: a zip archive that says that it is
  of several disks ended with a traceback; an object for a name in a checkpoint had PyTorch warn before the line;
  a folder in a folder, in the list of digests of earlier results, ended with a traceback. What was found is in the
  corpus, `tests/fuzz/corpus`.
"""
_LAST = """
Not looked at here: a real lost device (raised in its place), and a memory limit so low that a library ends the process
with a code of its own before a program of ours can say anything. Faults on a GPU were seen on one H100.
"""
_SOAK = TESTS / "soak" / "soak.json"


@dataclass(frozen=True, order=True)
class Fault:
    """A fault, where it is put, how that ends, and the test that looks."""

    where: str
    fault: str
    end: str
    test: str
    only_long: bool


@dataclass(frozen=True)
class Seen:
    """What was seen of a fault: the fault as it was marked then, and what became of each case of its test."""

    fault: Fault
    cases: Mapping[str, str]

    def __str__(self) -> str:
        outcomes = Counter(self.cases.values())
        return ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))


class Observer:
    """A plugin of pytest that writes what it sees of the tests with a ``faults`` mark into the record and the page."""

    def __init__(self) -> None:
        self.cases: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A case passes with its call; whatever else than that passes in any of its phases is its outcome."""
        if report.when == "call" or report.outcome != "passed":
            test, _, case = report.nodeid.removeprefix(f"{TESTS.name}/").partition("[")
            self.cases.setdefault(test, {})[case.removesuffix("]")] = report.outcome

    def pytest_sessionfinish(self) -> None:
        """Cases that did not run are kept as they were last seen, unless the mark says something else since; so are
        those skipped, as a fault on a GPU is where there is none."""
        kept = recorded()
        for fault in registered():
            if fault.test in self.cases:
                before = kept.get(fault.test)
                known = before.cases if before is not None and before.fault == fault else {}
                kept[fault.test] = Seen(fault, {**known, **seen_now(self.cases[fault.test], known)})
        marked = {fault.test for fault in registered()}
        rows = [
            asdict(seen.fault) | {"cases": dict(sorted(seen.cases.items()))}
            for test, seen in sorted(kept.items())
            if test in marked
        ]
        RECORD.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        PAGE.write_text(page(), encoding="utf-8")


def seen_now(cases: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """The cases that say something new: not those skipped that were seen before."""
    return {case: outcome for case, outcome in cases.items() if outcome != "skipped" or case not in known}


@cache
def registered() -> tuple[Fault, ...]:
    """All faults that tests are marked with."""
    return tuple(sorted(fault for path in TESTS.rglob("test_*.py") for fault in _in_file(path)))


def recorded() -> dict[str, Seen]:
    """What was last seen of each test."""
    rows = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else []
    return {row["test"]: Seen(Fault(**row), cases) for row in rows for cases in [row.pop("cases")]}


def page() -> str:
    """The whole page, of what was recorded."""
    rows = []
    for seen in sorted(recorded().values(), key=lambda seen: seen.fault):
        each = seen.fault
        test = f"`{each.test}`{' †' if each.only_long else ''}"
        rows.append(f"| {each.fault} | {each.where} | {each.end} | {seen} | {test} |\n")
    return _HEAD + "".join(rows) + _TAIL + soak() + _LAST


def soak() -> str:
    """What the last ``make soak`` saw."""
    if not _SOAK.exists():
        return ""
    seen = json.loads(_SOAK.read_text(encoding="utf-8"))
    ends = ", ".join(f"{end} ({number} times)" for end, number in seen["ends"].items())
    held = seen["quarters"]
    early, late = ({name: values[i] for name, values in held.items()} for i in (1, 3))
    told = (
        f"{seen['shards']} shards in one process in {seen['minutes']:g} minutes, with faults at random by seed "
        f"{seen['seed']}, which ended with these codes: {ends}. From the second to the last quarter, memory (RSS) went "
        f"from {early['rss_mib']:.0f} to {late['rss_mib']:.0f} MiB, {early['shared_mib']:.0f} and "
        f"{late['shared_mib']:.0f} MiB of it shared; descriptors from {early['descriptors']:g} to "
        f"{late['descriptors']:g}, threads from {early['threads']:g} to {late['threads']:g}. Vectors were the true "
        "ones wherever the code was 0, and no process, file or shared memory of a shard was left 10 s after it. "
        + (f"It grew: {'; '.join(seen['grown'])}." if seen["grown"] else "Nothing grew beyond what the soak allows.")
    )
    return (
        textwrap.fill(f"- **A soak** (`make soak`): {told}", 120, subsequent_indent="  ", break_on_hyphens=False) + "\n"
    )


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
