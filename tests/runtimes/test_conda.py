"""Profile `conda`, as far as one can see without conda: what it sets, and that its environment is the locks'."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from test_profiles import PARSERS, has, settings

PROJECT = Path(__file__).parents[2]
ENVIRONMENT = yaml.safe_load((PROJECT / "environment.yml").read_text())
INPUTS = ("requirements", "requirements-tools")


def named() -> set[str]:
    """The packages that the two .in files ask for."""
    lines = [line for name in INPUTS for line in (PROJECT / f"{name}.in").read_text().split()]
    return {line.split("==")[0].replace("_", "-") for line in lines}


def locked() -> set[str]:
    """name==version of the locks, for Python 3.11 where they differ."""
    text = "\n".join((PROJECT / f"{name}.lock").read_text() for name in INPUTS)
    pins = re.findall(r"^(\S+==\S+)(?: ; (.*?))? \\$", text, re.MULTILINE)
    return {pin for pin, marker in pins if "python_full_version >= '3.12'" not in marker}


def test_the_environment_holds_what_the_locks_hold() -> None:
    python, pip, packages = ENVIRONMENT["dependencies"]
    assert (python, pip) == ("python=3.11", "pip")
    assert {pin.split("==")[0] for pin in packages["pip"]} == named()
    assert set(packages["pip"]) <= locked()


@pytest.mark.parametrize("parser", PARSERS)
def test_the_profile_names_the_environment(parser: str) -> None:
    text = settings("conda", parser)
    assert has(text, "conda.enabled", "true")
    assert has(text, "process.conda", re.escape(f"'{PROJECT}/environment.yml'"))
