"""--help: every parameter once, in lines that fit a terminal, and commands that run; nothing else is done."""

from __future__ import annotations

import json
import re
import shlex
import sys

import pytest
from launch import Launch, launch
from schema_parameters import GROUPS, PROPERTIES
from terminal import launch_on_terminal

TRACE = "results/pipeline_info/trace.txt"


def after_banner(run: Launch) -> list[str]:
    """What is ours: Nextflow's own lines, which every run begins with, end with the script's revision."""
    lines = [line.rstrip() for line in run.output.splitlines()]
    (launched,) = (number for number, line in enumerate(lines) if " revision: " in line)
    return lines[launched + 1 :]


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Asked for where a run has left its files."""
    folder = tmp_path_factory.mktemp("help")
    (folder / TRACE).parent.mkdir(parents=True)
    (folder / TRACE).write_text("of an earlier run\n")
    return launch(folder, "--help")


def test_no_line_is_longer_than_80(helped: Launch) -> None:
    assert [line for line in after_banner(helped) if len(line) > 80] == []


def test_groups_and_parameters_are_those_of_the_schema_in_its_order(helped: Launch) -> None:
    text = "\n".join(after_banner(helped))
    listed, _, _ = text.partition("\nExamples\n")
    named = re.findall(r"^(?:  --(\w+)  |(\S.*)$)", listed.partition("\n\n")[2], re.MULTILINE)
    expected = [each for group in GROUPS for each in (group["title"], *group["properties"])]
    assert [name or title for name, title in named] == expected


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_parameter_is_told_with_its_default_and_choices(name: str, helped: Launch) -> None:
    text = re.sub(r"\n {24}", " ", "\n".join(after_banner(helped)))
    (line,) = re.findall(rf"^  --{name} +(.*)", text, re.MULTILINE)
    rule = PROPERTIES[name]
    assert line.startswith(rule["description"])
    facts = line.removeprefix(rule["description"])
    if "default" in rule:
        default = rule["default"]
        assert f"default {default if isinstance(default, str) else json.dumps(default)}]" in facts
    assert ", ".join(map(str, rule.get("enum", []))) in facts


def test_help_does_nothing_else(helped: Launch) -> None:
    assert helped.code == 0
    lines = [line for line in after_banner(helped) if line]
    assert lines[0] == "Protein FASTA in, ESM-2 embeddings out."
    assert lines[-1] == "docs/usage.md says more of each."
    assert [path.name for path in helped.results.rglob("*") if path.is_file()] == ["trace.txt"]
    assert (helped.folder / TRACE).read_text() == "of an earlier run\n"


def test_help_on_a_terminal_and_in_a_preview_is_the_same(helped: Launch) -> None:
    expected = "\n".join(after_banner(helped)).strip()
    assert expected in "\n".join(after_banner(launch_on_terminal(helped.folder, "--help", "-preview")))


@pytest.mark.one_engine
def test_the_examples_are_taken_as_they_are_printed(helped: Launch) -> None:
    text = "\n".join(after_banner(helped)).partition("\nExamples\n")[2].replace("\\\n", " ")
    commands = re.findall(r"^ +nextflow run \. (.*)", text, re.MULTILINE)
    assert len(commands) == 3
    (helped.folder / "proteins").mkdir()
    (helped.folder / ".venv").symlink_to(sys.prefix)
    for name in ("proteins.fasta", "proteins/a.fasta.gz"):
        (helped.folder / name).write_text(">a\nMKV\n")
    for command in commands:
        run = launch(helped.folder, *shlex.split(command), "-preview")
        assert run.code == 0, run.output
        assert "A preview: the parameters hold" in run.last_lines
