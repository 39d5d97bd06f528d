"""The readers in docs/export.md run, and find every protein."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from finished_results import IDS, KEPT, PROJECT, program

SNIPPETS = dict(re.findall(r"```python\n# ([\w-]+).*\n((?s:.*?))```", (PROJECT / "docs" / "export.md").read_text()))
#: Layout -> whether the names that a snippet binds hold what they should.
FOUND = {
    "uniprot": lambda names: len(names["vectors"]) == len(KEPT),
    "fair-esm": lambda names: names["label"] in {header for header, _ in KEPT} and names["by_layer"][6].shape == (320,),
    "npy": lambda names: names["ids"] == IDS,
    "h5ad": lambda names: len(names["long"]) == sum(len(sequence) > 100 for _, sequence in KEPT),
    "scikit-bio": lambda names: len(names["by_sequence"]) == len({sequence for _, sequence in KEPT}),
    "faiss": lambda names: {KEPT[row][1] for row in names["position"][0]} == {KEPT[0][1]},
}


def test_each_layout_has_a_reader() -> None:
    assert set(SNIPPETS) == set(FOUND)


@pytest.mark.parametrize("to", FOUND)
def test_a_reader(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    (package,) = re.findall(r"^import (\w+)", SNIPPETS[to], re.MULTILINE)
    pytest.importorskip(package)
    program("export.py", "--results", results, "--to", to, "--outdir", tmp_path / f"export-{to}")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(SNIPPETS[to], names)
    assert FOUND[to](names)
