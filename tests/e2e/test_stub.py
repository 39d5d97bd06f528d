"""What needs no task to run: the stub, and that edits of the package invalidate -resume."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from launch import copy_project, launch, once

PROCESSES = {"DESCRIBE_MODEL", "SPLIT_FASTA", "EMBED_SHARD", "MERGE_EMBEDDINGS", "REPORT"}
#: An edited file -> the processes that must run again: what runs it, and what comes after.
#: What other files are to which program tests/test_fingerprints.py asks.
EDITS = {
    "report/sections.py": {"REPORT"},
    "pipeline/engine.py": {"EMBED_SHARD", "MERGE_EMBEDDINGS", "REPORT"},
    "kernels/tiles.json": PROCESSES,
}


def test_an_edit_reruns_what_runs_it_and_nothing_else(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    (tmp_path / "in.fasta").write_text(">a\nMKV\n")
    (tmp_path / "model.pt").touch()
    folder = tmp_path / "run"
    stub = ("-stub", "--input", "../in.fasta", "--model", "../model.pt")

    first = launch(folder, *stub, project=project)
    assert first.code == 0, first.output
    assert first.statuses() == {process: {"COMPLETED"} for process in PROCESSES}
    assert "embeddings/part-00000.parquet" in first.published()

    cache = project / "bin" / "virnucpro" / "kernels" / "__pycache__"
    cache.mkdir()
    (cache / "attention.cpython-311.pyc").write_bytes(b"compiled")
    for name, rerun in EDITS.items():
        with (project / "bin" / "virnucpro" / name).open("a") as file:
            file.write("\n")
        statuses = launch(folder, *stub, "-resume", project=project).statuses()
        assert {process for process, seen in statuses.items() if seen == {"COMPLETED"}} == rerun, name
        assert {process for process, seen in statuses.items() if seen == {"CACHED"}} == PROCESSES - rerun, name


def test_folders_may_be_named_by_numbers(tmp_path: Path) -> None:
    (tmp_path / "2025").symlink_to(sys.prefix)
    run = launch(tmp_path, "-stub", "-profile", "test", "--outdir", "2026", "--python_env", "2025", "--report", "false")
    assert run.code == 0, run.output
    assert list((tmp_path / "2026" / "embeddings").iterdir())


@pytest.mark.one_engine
@pytest.mark.parametrize("name", ["esm2_t33_650M_UR50D", "lab/tuned-esm2"])
def test_a_stub_run_leaves_the_model_cache_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / "in.fasta").write_text(">a\nMKV\n")
    cache = tmp_path / "cache"
    arguments = ["--input", "../in.fasta", "--model", name, "--model_cache", cache, "--report", "false"]
    run = launch(tmp_path / "run", "-stub", *arguments)
    assert run.code == 0, run.output
    assert not cache.exists()


@pytest.mark.parametrize(
    ("module", "present", "misspelt", "message"),
    [
        ("split_fasta", '"embedded": 2', '"embeded": 2', "split_summary.json: embedded is missing"),
        once(
            "split_fasta",
            '"residues": 3, "cost": 1}]',
            '"residue": 3, "cost": 1}]',
            "split_summary.json: residues is missing",
        ),
        once(
            "merge_embeddings", '"rejected": 0, "trunc', '"reject": 0, "trunc', "run_summary.json: rejected is missing"
        ),
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


@pytest.mark.parametrize("place", ["elsewhere", once("nowhere")])
def test_a_trace_of_an_earlier_run_is_not_taken_for_this_ones(place: str, tmp_path: Path) -> None:
    """Users move Nextflow's trace, or switch it off; the folder of results keeps an older one then."""
    (tmp_path / "in.fasta").write_text(">a\nMKV\n")
    (tmp_path / "model.pt").touch()
    (tmp_path / "site.config").write_text("trace.enabled = false\n")
    older = tmp_path / "results" / "pipeline_info" / "trace.txt"
    older.parent.mkdir(parents=True)
    older.write_text("name\tstatus\tsubmit\tduration\nOLDER (1)\tCOMPLETED\t2026-01-31 23:59:50.000\t10s\n")
    given = ("-with-trace", "mine.txt") if place == "elsewhere" else ("-c", "site.config")
    run = launch(tmp_path, "-stub", "--input", "in.fasta", "--model", "model.pt", *given)
    assert run.code == 0, run.output
    assert "OLDER" not in run.output
    assert ("DESCRIBE_MODEL " in run.last_lines.partition("Of the run's ")[2]) == (place == "elsewhere")
