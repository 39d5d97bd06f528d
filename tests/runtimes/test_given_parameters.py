"""What the configuration reads of the parameters is what was given, under both of Nextflow's parsers."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pipeline_run import PROJECT, run_pipeline

STAND_INS = Path(__file__).parent / "stand_ins"
GIVEN = {"outdir": "elsewhere", "report": "false", "triton_cache": "/shared/kernels", "modules": "cuda/12.4"}


def without_closures(text: str) -> str:
    """A configuration less what Nextflow runs for each task, when it knows of all parameters."""
    while (start := re.search(r"[=:] \{", text)) is not None:
        end, depth = start.end(), 1
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        text = text[: start.start()] + text[end:]
    return text


def test_what_is_read_with_the_configuration_takes_what_was_given() -> None:
    files = [PROJECT / "nextflow.config", *sorted((PROJECT / "conf").glob("*.config"))]
    text = without_closures("\n".join(re.sub(r"^ *//.*", "", path.read_text(), flags=re.MULTILINE) for path in files))
    read = set(re.findall(r"params\.(\w+)\b(?! = )", text)) - {"getOrDefault"}
    assert {"gpus", "help", "job_array", *GIVEN} == read
    for name in read:
        assert f"    {name} = params.getOrDefault('{name}', " in text, name


@pytest.mark.parametrize(
    ("profile", "door", "parser"),
    [
        *(("slurm", "words", "v1"), ("slurm", "words", "v2"), ("docker", "words", "v2")),
        *(("slurm", "file", "v2"), ("slurm", "configuration", "v1")),
    ],
)
def test_tasks_and_pages_are_told_what_was_given(
    profile: str, door: str, parser: str, stub_inputs: Path, tmp_path: Path
) -> None:
    (tmp_path / "given.yaml").write_text("".join(f"{name}: {value}\n" for name, value in GIVEN.items()))
    words = [word for name, value in GIVEN.items() for word in (f"--{name}", value)]
    # Parser v2 of Nextflow 25.04 wants a profile declared in every file.
    site = "profiles { slurm { }\ndocker { } }\nexecutor.pollInterval = '1 sec'\n"
    if door == "configuration":
        site += "".join(f"params.{name} = '{value}'\n" for name, value in GIVEN.items())
    (tmp_path / "site.config").write_text(site)
    loaded = tmp_path / "loaded"
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "module").write_text(f'#!/bin/sh\necho "$@" >> {loaded}\n')
    (tmp_path / "path" / "module").chmod(0o755)
    run = run_pipeline(
        tmp_path / "run",
        *("-stub", "-profile", profile, "--gpus", "0"),
        *{"words": words, "file": ("-params-file", str(tmp_path / "given.yaml"))}.get(door, ()),
        inputs=stub_inputs,
        environment={
            "PATH": f"{tmp_path / 'path'}:{STAND_INS}:{os.environ['PATH']}",
            "VIRNUCPRO_TEST_CALLS": str(tmp_path / "calls"),
            "NXF_SYNTAX_PARSER": parser,
        },
        configs=(tmp_path / "site.config",),
        python_env=None,
    )
    assert run.code == 0, run.output
    tasks = [path.read_text() for path in run.directory.glob("work/*/*/.command.run")]
    assert len(tasks) == 5
    if door == "configuration":  # Nextflow reads such a file after ours.
        assert not any("/shared/kernels" in task for task in tasks) and not loaded.exists()
        assert (run.directory / "elsewhere" / "embeddings").is_dir()
        assert [path.name for path in (run.directory / "results").iterdir()] == ["pipeline_info"]
        return
    assert all(re.search(r"TRITON_CACHE_DIR=\W*/shared/kernels\W", task) for task in tasks)
    assert not loaded.exists() or "load cuda/12.4" in loaded.read_text()
    assert loaded.exists() == (profile == "slurm")
    assert [path.name for path in (run.directory / "elsewhere" / "pipeline_info").iterdir()] == ["trace.txt"]
    assert not (run.directory / "results").exists()
