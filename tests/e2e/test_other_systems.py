"""The pipeline on the CPU without what only Linux has, as far as a Linux machine can show it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from launch import MODEL, PROJECT, launch

pytestmark = pytest.mark.one_engine

WITHOUT_LINUX = PROJECT / "tests" / "without_linux"
#: What bash learned after 3.2, the one that macOS has.
LATER_THAN_BASH_3 = (
    r"\b(declare|local|typeset) -[a-zA-Z]*[An]",
    r"\b(mapfile|readarray|coproc)\b",
    r"\$\{[A-Za-z_]+(\^\^?|,,?)[^}]*\}",
    r"\$\{[A-Za-z_]+@[A-Z]\}",
    r"&>>|\|&",
    r"\bexec \{[a-z]+\}",
    r"\bwait -n\b",
    r"\[\[ -v ",
)
#: Script -> why it may need a later bash.
LINUX_ONLY = {"conf/gpu_slot.sh": "sourced where a task has a GPU"}


def scripts() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    named = [PROJECT / name for name in listed.splitlines() if not name.startswith("tests/")]
    found = [path for path in named if path.is_file()]
    return [path for path in found if path.suffix == ".sh" or re.match(rb"#!.*\b(ba)?sh\b", path.read_bytes()[:64])]


def test_the_pipeline_runs_without_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "processes.txt"
    monkeypatch.setenv("PYTHONPATH", str(WITHOUT_LINUX))
    monkeypatch.setenv("WITHOUT_LINUX_LOG", str(log))
    run = launch(tmp_path / "other", "-profile", "test", "--model", MODEL, "--per_residue", "true")
    assert run.code == 0, run.output
    assert {"fetch_model.py", "split_fasta.py", "embed_shard.py", "merge_embeddings.py", "report.py"} <= set(
        log.read_text().split()
    )
    monkeypatch.delenv("PYTHONPATH")
    usual = launch(tmp_path / "usual", "-profile", "test", "--model", MODEL, "--per_residue", "true")
    for folder in ("embeddings", "residues"):
        found, expected = (pq.read_table(each.results / folder) for each in (run, usual))
        assert found.num_rows > 0
        columns = [name for name in found.column_names if name.startswith(("embedding", "residues", "sequence_key"))]
        assert found.select(columns) == expected.select(columns)


@pytest.mark.parametrize("path", scripts(), ids=lambda path: str(path.relative_to(PROJECT)))
def test_scripts_keep_to_the_bash_of_macos(path: Path) -> None:
    later = [line for line in path.read_text().splitlines() if any(re.search(each, line) for each in LATER_THAN_BASH_3)]
    assert bool(later) == (str(path.relative_to(PROJECT)) in LINUX_ONLY), later
