"""Settings that a site has for all its pipelines, and the environment and locale of whoever starts one."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from launch import MODEL, PROJECT, launch

FEW = PROJECT / "tests" / "fixtures" / "few.fasta"
SHORT = ("--model", MODEL, "--report", "false")


def test_a_sites_before_script_takes_the_place_of_nothing(tmp_path: Path) -> None:
    """It runs under the guard and before the environment, which is the tasks' all the same."""
    seen = tmp_path / "seen"
    of_merge = f'{{ "echo ${{task.process}}:\\$VIRNUCPRO_TASK:\\$VIRTUAL_ENV >> {seen}" }}'
    (tmp_path / "site.config").write_text(
        f"process.beforeScript = 'echo \"all:$VIRNUCPRO_TASK:$VIRTUAL_ENV\" >> {seen}'\n"
        f"process {{ withName: MERGE_EMBEDDINGS {{ beforeScript = {of_merge} }} }}\n"
    )
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "python3").write_text("#!/bin/sh\nexit 97\n")
    (tmp_path / "path" / "python3").chmod(0o755)
    paths = [each for each in os.environ["PATH"].split(":") if each != f"{sys.prefix}/bin"]
    environment = {"PATH": ":".join([str(tmp_path / "path"), *paths]), "VIRTUAL_ENV": ""}
    run = launch(tmp_path, "-c", "site.config", "--input", FEW, *SHORT, environment=environment)
    assert run.code == 0, run.output
    told = [line.split(":") for line in seen.read_text().splitlines()]
    assert sorted(name for name, *_ in told) == ["MERGE_EMBEDDINGS", "all", "all", "all"]
    assert all(guard and not activated for _, guard, activated in told)


@pytest.mark.one_engine
@pytest.mark.parametrize("broken", ["moved", "without its Python"])
def test_an_environment_that_cannot_be_activated_is_told_before_another_computes(broken: str, tmp_path: Path) -> None:
    programs = tmp_path / "env" / "bin"
    programs.mkdir(parents=True)
    was = tmp_path / "gone" if broken == "moved" else tmp_path / "env"
    activate = (Path(sys.prefix) / "bin" / "activate").read_text()
    (programs / "activate").write_text(
        activate.replace(str(Path(sys.prefix).resolve()), str(was)).replace(sys.prefix, str(was))
    )
    (programs / "python3").symlink_to(sys.executable if broken == "moved" else tmp_path / "no_python")
    run = launch(tmp_path, "--input", FEW, *SHORT, "--python_env", "env")
    assert run.code == 66, run.output
    assert re.search(
        r"error: --python_env env: its bin/activate leads to (/.*|no python3), not to one in it; make it anew",
        run.last_lines,
    )
    assert not any((tmp_path / "work").glob("*/*"))


@pytest.mark.one_engine
@pytest.mark.parametrize("given", ["in a folder", "by name"])
def test_a_locale_without_the_letters_of_a_name_is_told_with_what_to_do(given: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "prot\u00e9ines.fasta").write_text(FEW.read_text())
    (tmp_path / "given.json").write_text(
        json.dumps({"input": "in" if given == "in a folder" else "in/prot\u00e9ines.fasta"})
    )
    run = launch(tmp_path, "-params-file", "given.json", *SHORT, environment={"LC_ALL": "POSIX"})
    assert run.code == 66, run.output
    assert "in it that the locale's encoding, ANSI_X3.4-1968, has not; export LC_ALL=C.UTF-8" in run.last_lines
