"""docs/notebook.ipynb: ten lines at most, and each cell runs and shows what its text says."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
NOTEBOOK = json.loads((PROJECT / "docs" / "notebook.ipynb").read_text())
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
#: After the cells: what they showed, as text.
SHOWN = """
facts, figure, neighbours = shown
assert list(facts.columns) == ["id", "length"] and len(facts) == 351
assert len(figure.data[0].x) == len(set(figure.data[0].hovertext)) == 351
print(*neighbours["neighbour_id"])
"""


def test_it_is_short_and_holds_no_output() -> None:
    assert sum(bool(line.strip()) for cell in CELLS for line in cell.splitlines()) <= 10
    assert all(not cell.get("outputs") for cell in NOTEBOOK["cells"])


def test_every_cell_runs() -> None:
    script = "shown = []\n"
    for cell in CELLS:
        *lines, last = ast.parse(cell).body
        assert isinstance(last, ast.Expr)
        script += "".join(f"{ast.unparse(line)}\n" for line in lines) + f"shown.append({ast.unparse(last)})\n"
    done = subprocess.run(
        [sys.executable, "-c", script + SHOWN],
        cwd=PROJECT,
        env={"PYTHONPATH": str(PROJECT / "bin"), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    assert len(found) == 5 and found[0] == "tr|A0A0R4J0D9|A0A0R4J0D9_MOUSE"
