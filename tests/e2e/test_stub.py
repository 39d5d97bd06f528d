"""What needs no task to run: the stub, and that edits of the package invalidate -resume."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch import copy_project, launch

PROCESSES = {"DESCRIBE_MODEL", "SPLIT_FASTA", "EMBED_SHARD", "MERGE_EMBEDDINGS"}


def everywhere(status: str) -> dict[str, set[str]]:
    return {process: {status} for process in PROCESSES}


def test_an_edit_anywhere_in_the_package_reruns_everything_and_nothing_else_does(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    (tmp_path / "in.fasta").write_text(">a\nMKV\n")
    (tmp_path / "model.pt").touch()
    folder = tmp_path / "run"
    stub = ("-stub", "-resume", "--input", "../in.fasta", "--model", "../model.pt", "--report", "false")

    first = launch(folder, *stub, project=project)
    assert first.code == 0, first.output
    assert first.statuses() == everywhere("COMPLETED")
    assert "embeddings/part-00000.parquet" in first.published()

    cache = project / "bin" / "virnucpro" / "kernels" / "__pycache__"
    cache.mkdir()
    (cache / "attention.cpython-311.pyc").write_bytes(b"compiled")
    assert launch(folder, *stub, project=project).statuses() == everywhere("CACHED")

    for name in ("kernels/attention.py", "kernels/tiles.json", "errors.py"):
        with (project / "bin" / "virnucpro" / name).open("a") as file:
            file.write("\n")
        assert launch(folder, *stub, project=project).statuses() == everywhere("COMPLETED"), name
    assert launch(folder, *stub, project=project).statuses() == everywhere("CACHED")


def test_a_stub_run_leaves_the_model_cache_alone(tmp_path: Path) -> None:
    (tmp_path / "in.fasta").write_text(">a\nMKV\n")
    cache = tmp_path / "cache"
    run = launch(tmp_path / "run", "-stub", "--input", "../in.fasta", "--model_cache", cache, "--report", "false")
    assert run.code == 0, run.output
    assert not cache.exists()


@pytest.mark.parametrize(
    ("module", "present", "misspelt", "message"),
    [
        ("split_fasta", '"embedded": 2', '"embeded": 2', "split_summary.json: embedded is missing"),
        (
            "split_fasta",
            '"residues": 3, "cost": 1}]',
            '"residue": 3, "cost": 1}]',
            "split_summary.json: residues is missing",
        ),
        ("describe_model", '"embed_dim": 2', '"embeddim": 2', "model.json: embed_dim is missing"),
        ("merge_embeddings", '"rejected": 0', '"reject": 0', "run_summary.json: rejected is missing"),
    ],
)
def test_a_field_that_a_process_left_out_is_named(
    tmp_path: Path, module: str, present: str, misspelt: str, message: str
) -> None:
    project = copy_project(tmp_path / "project")
    script = project / "modules" / module / "main.nf"
    assert present in script.read_text()
    script.write_text(script.read_text().replace(present, misspelt))
    (tmp_path / "in.fasta").write_text(">a\nMKV\n")
    (tmp_path / "model.pt").touch()
    options = ("--input", "../in.fasta", "--model", "../model.pt", "--report", "false")
    run = launch(tmp_path / "run", "-stub", *options, project=project)
    assert message in run.last_lines
    assert run.code == 65, run.output
