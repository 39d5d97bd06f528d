"""The files that decide whether a task runs again are those that its program imports, seen here by another reader."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from e2e.launch import PROJECT, nextflow_command
from test_import_rules import BIN, imported

PROGRAMS = sorted(path.name for path in BIN.glob("*.py"))
SCRIPT = """
include {{ neededIn ; sources }} from '{module}'

workflow {{
    def bin = file('{bin}')
    def needed = neededIn(bin, [:].withDefault {{ name -> bin.resolve(name).text }})
    def found = [{programs}].collectEntries {{ name -> [name, sources(name, needed, [] as Set).sort()] }}
    file('{out}').text = groovy.json.JsonOutput.toJson(found)
}}
"""


def closure(program: str) -> set[str]:
    """Files that a program imports, directly or not, and data beside them, relative to ``bin``."""
    found: set[Path] = set()
    waiting = [BIN / program]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        for name in imported(path) | {f"{name}.{each}" for name, each in members(path)}:
            parts = name.split(".")
            waiting += [BIN.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
            waiting.append(BIN.joinpath(*parts).with_suffix(".py"))
    ours = {path for path in found if path.name == program or "virnucpro" in path.parts}
    data = {data for path in ours for data in path.parent.glob("*.json")}
    return {str(path.relative_to(BIN)) for path in ours | data}


def members(path: Path) -> set[tuple[str, str]]:
    """What a module imports by ``from``: the package or module, and the name."""
    import ast

    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {(str(node.module), alias.name) for node in nodes for alias in node.names}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("fingerprints")
    facts = {"module": PROJECT / "modules" / "parameters" / "main.nf", "bin": BIN, "out": folder / "found.json"}
    (folder / "main.nf").write_text(SCRIPT.format(programs=str(PROGRAMS)[1:-1], **facts))
    environment = {**os.environ, "NXF_OFFLINE": "true", "NXF_DISABLE_CHECK_LATEST": "true"}
    done = subprocess.run(
        [*nextflow_command(), "run", "main.nf"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content: dict[str, list[str]] = json.loads((folder / "found.json").read_text())
    return content


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_fingerprint_covers_what_its_program_imports(found: dict[str, list[str]], program: str) -> None:
    assert len(found[program]) > 5
    assert set(found[program]) == closure(program)


@pytest.mark.parametrize(
    ("program", "rooms"),
    [
        ("split_fasta.py", {"split", "output", "cli"}),
        ("compile_kernels.py", {"data", "kernels", "model", "monitor", "output", "pipeline", "cli"}),
        ("embed_shard.py", {"data", "kernels", "model", "monitor", "output", "pipeline", "cli"}),
        ("merge_embeddings.py", {"merge", "monitor", "output", "cli"}),
        ("neighbours.py", {"cli", "data", "kernels", "model", "monitor", "neighbours", "output", "pipeline"}),
        ("report.py", {"report", "monitor", "output", "cli"}),
        ("fetch_model.py", {"model", "kernels", "output", "cli"}),
    ],
)
def test_a_program_runs_these_rooms(program: str, rooms: set[str]) -> None:
    parts = [Path(name).parts for name in closure(program)]
    assert {each[1] for each in parts if len(each) == 3} == rooms
