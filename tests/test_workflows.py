"""GitHub's workflows, which were never run, against what they repeat."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import yaml

from virnucpro import __version__

PROJECT = Path(__file__).parents[1]


def jobs(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT / ".github" / "workflows" / name).read_text())["jobs"]
    return loaded


def test_the_lowest_python_and_the_engines_are_the_projects() -> None:
    found = jobs("tests.yml")
    lowest = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f">={found['test']['strategy']['matrix']['python'][0]}" == lowest
    engines = [(each["nextflow"], each["parser"]) for each in found["engines"]["strategy"]["matrix"]["include"]]
    ours = re.findall(r"end_to_end (\S+) (v\d) ", (PROJECT / ".ci" / "run").read_text())
    assert sorted(engines) == sorted(set(ours)) and len(ours) == 2 * len(engines)


def test_images_are_published_under_the_names_that_are_built_and_asked_for() -> None:
    steps = jobs("images.yml")["build"]["steps"]
    assert [step["run"].split()[-2:] for step in steps[-1:]] == [["containers/build.sh", "push"]]
    assert steps[-2]["run"] == "containers/build.sh"
    built = re.search(r"for name in (.+?);", (PROJECT / "containers" / "build.sh").read_text())
    asked = re.search(r"virnucpro-\$\{.+ \? '(\w+)' : '(\w+)'\}:", (PROJECT / "conf" / "base.config").read_text())
    assert built and asked and built[1].split() == list(asked.groups())


def test_only_a_tag_that_is_the_version_is_published() -> None:
    lines = jobs("images.yml")["build"]["steps"][-1]["run"].splitlines()
    check = next(line for line in lines if "$TAG" in line)
    assert lines.index(check) < next(i for i, line in enumerate(lines) if "login" in line)
    for tag, code in ((__version__, 0), ("9.9.9", 1), (__version__.replace(".", "x"), 1)):
        words = ["bash", "-euo", "pipefail", "-c", check]
        assert subprocess.run(words, cwd=PROJECT, env={**os.environ, "TAG": tag}, check=False).returncode == code
