"""GitHub's workflows, which were never run, against what they repeat."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[1]


def jobs(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT / ".github" / "workflows" / name).read_text())["jobs"]
    return loaded


def test_the_lowest_python_and_the_engines_are_the_projects() -> None:
    found = jobs("tests.yml")
    lowest = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f">={found['test']['strategy']['matrix']['python'][0]}" == lowest
    engines = [(each["nextflow"], each["parser"]) for each in found["engines"]["strategy"]["matrix"]["include"]]
    ours = re.findall(r"end_to_end (\S+) (v\d)$", (PROJECT / ".ci" / "run").read_text(), re.MULTILINE)
    assert sorted(engines) == sorted(ours)


def test_images_are_published_under_the_names_that_are_built_and_asked_for() -> None:
    published = re.search(r"for name in (.+?);", jobs("images.yml")["build"]["steps"][-1]["run"])
    built = re.search(r"for name in (.+?);", (PROJECT / "containers" / "build.sh").read_text())
    asked = re.findall(r"'virnucpro-(\w+):", (PROJECT / "conf" / "base.config").read_text())
    assert published and built and published[1].split() == built[1].split() == asked
