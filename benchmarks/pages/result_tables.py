"""Result files read and set as Markdown: what the pages of docs/ that hold measurements share."""

from __future__ import annotations

import ast
import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import ROOT

Row = Mapping[str, str]
#: The sizes that bench_engines.py knows, in order.
SIZES = ("8M", "150M", "650M", "3B")
#: Where a result file has no such figure.
ABSENT = "-"
DATA = {
    "viruses_sprot.fasta": "the reviewed viral proteins of UniProtKB/Swiss-Prot (UniProt, CC BY 4.0), as in Prokka's "
    "`db/kingdom/Viruses/sprot`"
}


def parameters_of(name: str) -> float:
    """Parameters that a name with a size in it tells, as 650e6 for ``parity-650M``; infinity without one."""
    found = re.search(r"(\d+)([MB])", name)
    return int(found[1]) * {"M": 1e6, "B": 1e9}[found[2]] if found else math.inf


def read_rows(path: Path) -> list[Row]:
    """Rows of one result file; none where there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def files(results: Path, pattern: str) -> list[Path]:
    """Result files that match and hold a row, smallest model first."""
    found = [path for path in results.glob(pattern) if read_rows(path)]
    return sorted(found, key=lambda path: (parameters_of(path.stem), path.stem))


def number(row: Row, key: str) -> float | None:
    """A figure of a row, or None where it has none."""
    text = row.get(key)
    return float(text) if text else None


def show(value: float | None, pattern: str = ",.0f") -> str:
    """A figure, or that it is absent; exponents without a leading zero."""
    return ABSENT if value is None else format(value, pattern).replace("e-0", "e-")


def times(value: float | None, other: float | None) -> str:
    return ABSENT if value is None or not other else f"{value / other:.1f}"


def percent(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.1f} %"


def cut(cosine: float | None, digits: int = 7) -> str:
    """A cosine with its digits cut off, so that none looks better than it is."""
    return ABSENT if cosine is None else f"{math.floor(min(cosine, 1.0) * 10**digits) / 10**digits:.{digits}f}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose columns after the first ``left`` are aligned to the right."""
    lines = [heads, ["---" if column < left else "---:" for column in range(len(heads))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def distinct(rows: Iterable[Row], key: str) -> list[str]:
    """Values of one column, each once, in order."""
    return list(dict.fromkeys(row[key] for row in rows if row.get(key)))


def conditions_line(rows: Sequence[Row], path: Path, root: Path = ROOT) -> str:
    """Machine, versions, commit, data and file of a table."""
    parts = []
    for key, pattern in (
        ("device", "{}"),
        ("power_limit_w", "power limit {} W"),
        ("cpu_count", "{} CPU cores"),
        ("torch", "torch {}"),
        ("cuda", "CUDA {}"),
        ("data", "data {}"),
        ("commit", "commit {}"),
        ("date", "{}"),
    ):
        values = distinct(rows, key)
        parts += [pattern.format(" and ".join(values))] if values else []
    shown = path.relative_to(root) if path.is_relative_to(root) else path.name
    return f"{', '.join(parts)} (`{shown}`)."


def data_line(rows: Sequence[Row]) -> str:
    """What the named input files hold."""
    return "; ".join(f"`{name}`: {DATA[name]}" for name in distinct(rows, "data") if name in DATA)


def constant(path: str, name: str, root: Path = ROOT) -> object:
    """A literal constant of a module, read from its source: importing it may need a GPU's packages."""
    for node in ast.parse((root / path).read_text(encoding="utf-8")).body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and target.id == name and isinstance(node, ast.Assign | ast.AnnAssign):
            assert node.value is not None
            return ast.literal_eval(node.value)
    raise LookupError(f"{path} has no constant {name}")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure shall reach: at least ``bound``, or at most where ``most`` is set."""

    name: str
    bound: float
    pattern: str = ".2f"
    most: bool = False

    @property
    def shown_bound(self) -> str:
        return f"{'≤' if self.most else '≥'} {show(self.bound, self.pattern)}"

    def met(self, value: float) -> bool:
        return value <= self.bound if self.most else value >= self.bound

    def row(self, value: float | None, shown: str | None = None) -> list[str]:
        """Name, bound, figure, and met, missed or not measured."""
        verdict = "not measured" if value is None else "met" if self.met(value) else "**missed**"
        figure = show(value, self.pattern) if shown is None else shown
        return [self.name, self.shown_bound, figure, verdict]
