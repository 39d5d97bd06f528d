"""-resume with other parameters: which of them keep finished shards, and which compute them again.

What a script block holds decides, and a stub has another: here the programs themselves are stood in for.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_runs import assert_whole, options
from gpu_locks import LOCKS
from launch import PROJECT, Launch, copy_project, launch
from schema_parameters import PROPERTIES

STAND_INS = PROJECT / "tests" / "runtimes" / "stand_ins"
#: What may change, and to what; paths are in the folder of the runs.
KEPT = {
    "outdir": "elsewhere/results",
    "overwrite": "true",
    "neighbours": "3",
    "reference": "earlier",
    "report": "false",
    "provenance": "full",
    "gpus": "4",
    "token_budget": "5000",
    "python_env": "environment",
    "triton_cache": "kernels",
    "queue": "long",
    "gpu_queue": "gpu",
    "account": "lab",
    "qos": "low",
    "gpu_type": "nvidia-l4",
    "gpu_request": "gres=gpu:a100:1",
    "job_array": "100",
}
#: What the split or the vectors follow from without being an option of their programs.
COMPUTED_AGAIN = {
    "input": "other.fasta",
    "sample_sheet": "samples.tsv",
    "model": "other.pt",
    "dedup": "false",
    "reuse": "earlier",
    "self_check": "false",
    "device": "mps",
    "max_length": "512",
}
#: The software that tasks are given, which Nextflow compares itself; the model's path; and what runs nothing.
NOT_OURS = {"modules", "container_registry", "model_cache", "model_revision", "help"}
PROGRAMS = {
    "fetch_model": "describe_model",
    "split_fasta": "split_fasta",
    "embed_shard": "embed_shard",
    "merge_embeddings": "merge_embeddings",
    "neighbours": "neighbours",
    "report": "report",
}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment whose nvidia-smi lists $CARDS cards of the kind $CARD; one unless told."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "nvidia-smi").write_text(
        "#!/bin/bash\nfor ((card = 0; card < ${CARDS:-1}; card++)); do\n"
        f'[[ $* == *uuid* ]] && echo "$card, GPU-{folder.name}-$card" || echo "$card, ${{CARD:-NVIDIA L4}}"\ndone\n'
    )
    (folder / "nvidia-smi").chmod(0o755)
    # On four cores COMPILE_KERNELS would keep a shard waiting, and is left out.
    yield {"PATH": f"{folder}:{os.environ['PATH']}", "NXF_OPTS": "-XX:ActiveProcessorCount=4"}
    for lock in LOCKS.glob(f"GPU-{folder.name}-*"):
        lock.unlink()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline with programs that do what stubs do."""
    project = copy_project(tmp_path_factory.mktemp("resume") / "project")
    for program, module in PROGRAMS.items():
        stub = (project / "modules" / module / "main.nf").read_text().split("stub:")[1].split('"""')[1]
        # --shard is the first option of embed_shard.py.
        done = stub.replace("\\\\n", "\\n").replace("${shard.baseName}", "${2%.fasta}")
        (project / "bin" / f"{program}.py").write_text(f"#!/bin/bash\nset -e\n{done}")
    return project


def resumed(project: Path, driver: dict[str, str], parameters: dict[str, str], *others: str) -> dict[str, set[str]]:
    """What became of each process's tasks in a run with these parameters, in the place of those of the first."""
    folder = project.parent
    given = {"gpus": "1", "model": "model.pt", **parameters}
    if "sample_sheet" not in given:
        given = {"input": "in.fasta", **given}
    arguments = [word for name, value in given.items() for word in (f"--{name}", value)]
    run = launch(folder, *others, *arguments, project=project, environment=driver)
    assert run.code == 0, run.output
    statuses: dict[str, set[str]] = {}
    for status, process in re.findall(r"\] (Cached|Submitted) process > (\w+)", run.output):
        statuses.setdefault(process, set()).add(status)
    return statuses


@pytest.fixture(scope="module")
def first(project: Path, driver: dict[str, str]) -> None:
    folder = project.parent
    for name in ("in.fasta", "other.fasta", "model.pt", "other.pt"):
        (folder / name).write_text(">a\nMKV\n>b\nMKT\n")
    (folder / "samples.tsv").write_text("sample\tfile\na\tin.fasta\n")
    (folder / "environment" / "bin").mkdir(parents=True)
    (folder / "environment" / "bin" / "activate").touch()
    (folder / "earlier").mkdir()
    statuses = resumed(project, driver, {})
    names = ("DESCRIBE_MODEL", "SPLIT_FASTA", "EMBED_SHARD", "MERGE_EMBEDDINGS", "REPORT")
    assert statuses == {process: {"Submitted"} for process in names}


def test_every_parameter_has_its_place() -> None:
    programs = {"split_fasta.py", "embed_shard.py"}
    passed = {name for name, rule in PROPERTIES.items() if programs & {*rule.get("tools", ())}}
    assert not KEPT.keys() & passed
    assert set(PROPERTIES) == KEPT.keys() | COMPUTED_AGAIN.keys() | NOT_OURS | passed


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(("profile", "gpus"), [("", "4"), ("slurm", "3")])
def test_what_may_change_keeps_every_shard(
    profile: str, gpus: str, project: Path, driver: dict[str, str], tmp_path: Path
) -> None:
    cards = {"CARDS": gpus, "CARD": "NVIDIA H100 80GB HBM3", "VIRNUCPRO_TEST_CALLS": str(tmp_path / "calls")}
    environment = {**cards, "PATH": f"{STAND_INS}:{driver['PATH']}"}
    options = ["-profile", profile] if profile else []
    # Other values each time: a task that any earlier run has done is not done again.
    changed = {**KEPT, "gpus": gpus, "token_budget": f"{gpus}000", "provenance": "names"}
    statuses = resumed(project, environment, changed, "-resume", *options)
    kept = {"DESCRIBE_MODEL", "SPLIT_FASTA", "EMBED_SHARD", "MERGE_EMBEDDINGS"}
    assert {name: seen for name, seen in statuses.items() if name in kept} == {name: {"Cached"} for name in kept}
    assert statuses.keys() - kept == {"NEIGHBOURS"}


@pytest.mark.one_engine
@pytest.mark.usefixtures("first")
def test_another_record_is_merged_alone(project: Path, driver: dict[str, str]) -> None:
    statuses = resumed(project, driver, {"provenance": KEPT["provenance"], "report": "false"}, "-resume")
    assert statuses.pop("MERGE_EMBEDDINGS") == {"Submitted"}
    assert set().union(*statuses.values()) == {"Cached"}


@pytest.mark.one_engine
@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("name", COMPUTED_AGAIN)
def test_what_decides_of_the_vectors_computes_them_again(name: str, project: Path, driver: dict[str, str]) -> None:
    statuses = resumed(project, driver, {name: COMPUTED_AGAIN[name], "report": "false"}, "-resume")
    assert statuses["EMBED_SHARD"] == {"Submitted"}
    assert statuses["SPLIT_FASTA"] == {"Cached" if name == "self_check" else "Submitted"}


@pytest.fixture(scope="module")
def on_the_cpu(tmp_path_factory: pytest.TempPathFactory, driver: dict[str, str]) -> dict[str, str]:
    """The driver, and an embed_shard.py that computes on the CPU what is for a GPU; shards like $FAILS fail."""
    stand_in = tmp_path_factory.mktemp("programs") / "embed_shard.py"
    real = PROJECT / "bin" / "embed_shard.py"
    stand_in.write_text(f'#!/bin/bash\n[[ $2 == ${{FAILS:-}}.fasta ]] && exit 1\nexec {real} "${{@/#cuda/cpu}}"\n')
    stand_in.chmod(0o755)
    return {**driver, "PATH": f"{stand_in.parent}:{driver['PATH']}"}


@pytest.mark.one_engine
def test_finished_shards_are_kept_when_there_are_more_gpus(
    tmp_path: Path, model: Path, whole: Launch, on_the_cpu: dict[str, str]
) -> None:
    arguments = (*options(model), "--shard_residues", "100000", "--report", "false", "--precision", "fp32")
    first = launch(tmp_path, *arguments, "--gpus", "2", environment={**on_the_cpu, "FAILS": "shard-00001"})
    assert (first.code, first.statuses()["EMBED_SHARD"]) == (1, {"COMPLETED", "FAILED"}), first.output
    assert "in 2 shards on 2 GPUs" in first.output and "Cut for" not in first.output

    four = {**on_the_cpu, "CARDS": "4", "CARD": "NVIDIA H100 80GB HBM3"}
    again = launch(tmp_path, *arguments, "-resume", "--gpus", "4", "--token_budget", "4000", environment=four)
    assert_whole(again, whole)
    assert again.statuses() == {
        "DESCRIBE_MODEL": {"CACHED"},
        "SPLIT_FASTA": {"CACHED"},
        "EMBED_SHARD": {"CACHED", "COMPLETED"},
        "MERGE_EMBEDDINGS": {"COMPLETED"},
    }
    told = "Cut for the fewer GPUs of the run that goes on, so that its finished shards are kept: 2 of 4 GPUs work"
    assert f"{told}; without -resume all do" in again.output.splitlines()
    # Its own, and those that tasks after it are given as links.
    summaries = tmp_path.glob("work/*/*/shard-00001/summary.json")
    assert {json.loads(path.read_text())["token_budget"] for path in summaries} == {4000}

    fresh = launch(tmp_path / "fresh", *arguments, "--gpus", "4", environment={**four, "FAILS": "*"})
    assert "in 4 shards on 4 GPUs" in fresh.output and "Cut for" not in fresh.output


def test_the_documentation_lists_what_may_change() -> None:
    text = (PROJECT / "docs" / "usage.md").read_text().split("## Going on after an interruption")[1].split("\n## ")[0]
    (line,) = [line for line in text.splitlines() if line.startswith("- Finished shards are kept")]
    assert set(re.findall(r"`--(\w+)`", line)) == KEPT.keys()
