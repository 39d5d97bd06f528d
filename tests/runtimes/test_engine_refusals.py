"""The last line of a run whose container engine starts nothing. What Docker says was taken from 20.10 and 28.2."""

from __future__ import annotations

from pathlib import Path

from e2e.launch import ask
from pipeline_run import EMBED_IMAGE, run_pipeline

HELP = ("See 'docker run --help'.", "\nRun 'docker run --help' for more information")
REFUSED = "docker: Error response from daemon: "
ABSENT = f"Unable to find image '{EMBED_IMAGE}' locally\n{REFUSED}pull access denied for virnucpro-embed."
BUILD = (
    f"no image {EMBED_IMAGE} on this machine: build both with `make images`, "
    "or name the registry that has them in --container_registry"
)
CASES = [
    (ABSENT, BUILD),
    (
        f"Unable to find image 'lab:5000/a/embed:1' locally\n{REFUSED}manifest unknown.",
        f"{REFUSED}manifest unknown.; lab:5000/a/embed:1 is neither here nor to be pulled: "
        "check --container_registry, and `docker login`",
    ),
    (
        f'{REFUSED}could not select device driver "" with capabilities: [[gpu]].',
        f'{REFUSED}could not select device driver "" with capabilities: [[gpu]]: '
        "install NVIDIA's Container Toolkit, or compute on the CPU with --gpus 0",
    ),
    (
        "docker: permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: "
        'Head "http://%2Fvar%2Frun%2Fdocker.sock/_ping": dial unix /var/run/docker.sock: connect: permission denied',
        "docker: permission denied by its daemon: run as a member of the group docker, "
        "or take -profile podman or apptainer",
    ),
    (
        "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?; "
        "start it, or take another engine or --python_env",
    ),
    (f"{REFUSED}no space left on device.", f"{REFUSED}no space left on device."),
    ("Killed", None),
]
SCRIPT = """
include {{ complaint }} from '{module}'

workflow {{
    def cases = new groovy.json.JsonSlurper().parseText(file('{cases}').text)
    file('{told}').text = groovy.json.JsonOutput.toJson(cases.collect {{ said -> complaint(said.readLines()) }})
}}
"""


def test_what_the_engine_says_becomes_what_to_do(tmp_path: Path) -> None:
    given = [f"{said}\n{hint}" for said, _ in CASES for hint in HELP]
    told: list[str | None] = ask(tmp_path, SCRIPT, "engine", given)
    assert told == [expected for _, expected in CASES for _ in HELP]


def test_the_last_line_of_a_run_without_images(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"")
    (tmp_path / "few.fasta").write_text(">p\nMKV\n")
    engine = tmp_path / "path" / "docker"
    engine.parent.mkdir()
    engine.write_text(f"#!/bin/sh\n[ $1 = run ] || exit 0\ncat >&2 <<'END'\n{ABSENT}\n{HELP[1]}\nEND\nexit 125\n")
    engine.chmod(0o755)
    run = run_pipeline(
        tmp_path / "run",
        *("-profile", "docker", "--gpus", "0"),
        inputs=tmp_path,
        environment={"PATH": f"{engine.parent}:/usr/bin:/bin"},
        python_env=None,
    )
    assert run.code == 125, run.output
    assert run.output.splitlines()[-1] == f"No results: {BUILD}"
