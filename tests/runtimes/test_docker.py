"""The pipeline in the images of containers/: the same vectors, the caller's files, nothing left running."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pipeline_run import (
    EMBED_IMAGE,
    TOOLS_IMAGE,
    Run,
    pipeline_command,
    pipeline_environment,
    public_folder,
    read_only_containers,
    run_pipeline,
    small_fasta,
)
from slurm_cluster import SLURM, cluster, devices_of_containers, needs_slurm

from virnucpro import __version__

SOCKET = Path("/var/run/docker.sock")
IMAGES = (TOOLS_IMAGE, EMBED_IMAGE)
NAMELESS = 4321


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def missing() -> str | None:
    """Why Docker tests cannot run here, in words."""
    if shutil.which("docker") is None:
        return "Docker is not installed"
    for image in ("", *IMAGES):
        command = ["docker", "image", "inspect", image] if image else ["docker", "info"]
        if subprocess.run(command, capture_output=True).returncode != 0:
            return f"no image {image}; run `make images`" if image else "no Docker daemon answers"
    return None


WHY = missing()
pytestmark = [pytest.mark.docker, pytest.mark.skipif(WHY is not None, reason=str(WHY))]


def containers() -> list[str]:
    return docker("ps", "--all", "--filter", "name=nxf-", "--format", "{{.Names}}").split()


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)


@pytest.fixture
def long_inputs(tmp_path: Path, inputs: Path) -> Path:
    """The small model and enough residues to keep a task busy for minutes."""
    directory = tmp_path / "long"
    directory.mkdir()
    (directory / "model.pt").symlink_to(inputs / "model.pt")
    small_fasta(directory / "few.fasta", records=20_000, residues=1000)
    return directory


@pytest.fixture
def public(inputs: Path) -> Iterator[Path]:
    """A folder that everybody may enter, with the small model and its input."""
    with public_folder() as folder:
        for file in ("model.pt", "few.fasta"):
            shutil.copy(inputs / file, folder)
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user, which takes root")
def test_a_user_without_name_or_home_on_a_read_only_root(public: Path, local: Run) -> None:
    launch = public / "run"
    launch.mkdir()
    os.chown(launch, NAMELESS, SOCKET.stat().st_gid)
    run = run_pipeline(
        launch,
        *("-profile", "docker", "--gpus", "0"),
        inputs=public,
        environment={"HOME": str(launch), "NXF_HOME": str(launch / ".nextflow")},
        configs=(read_only_containers(public),),
        python_env=None,
        prefix=("setpriv", f"--reuid={NAMELESS}", f"--regid={SOCKET.stat().st_gid}", "--clear-groups"),
    )
    assert run.code == 0, run.output
    assert run.vectors() == local.vectors()
    assert {path.lstat().st_uid for path in launch.rglob("*")} == {NAMELESS}
    weights = list((launch / "work").glob("*/*/model/model.pt"))
    assert weights and all(path.is_symlink() for path in weights), "weights are mounted, not copied"
    wrappers = [path.read_text() for path in (launch / "work").glob("*/*/.command.run")]
    assert wrappers and all("docker run" in text and "--init -u $(id -u):$(id -g)" in text for text in wrappers)
    for cache in ("HF_HOME", "TORCH_HOME", "TRITON_CACHE_DIR", "XDG_CACHE_HOME"):
        assert all(f'export {cache}="\\$PWD/.cache' in text for text in wrappers), cache
    assert containers() == []


def test_no_toolkit_in_the_tools_image_and_no_cache_in_either() -> None:
    look = (
        "python -c 'import importlib.util as u; print(bool(u.find_spec(\"torch\")))'; find /root /home /tmp -mindepth 1"
    )
    found = {image: docker("run", "--rm", image, "bash", "-c", look).split() for image in IMAGES}
    skeleton = {"/root/.bashrc", "/root/.profile"}
    assert found[TOOLS_IMAGE][0] == "False" and found[EMBED_IMAGE][0] == "True"
    assert all(set(lines[1:]) <= skeleton for lines in found.values()), found
    form = '{{.Config.Entrypoint}} {{.Config.User}} {{index .Config.Labels "org.opencontainers.image.version"}}'
    inspected = [docker("image", "inspect", "--format", form, image).split() for image in IMAGES]
    assert inspected == [["[]", __version__]] * 2


@pytest.mark.parametrize("image", IMAGES)
def test_no_task_compiles_a_source_of_the_image(image: str) -> None:
    """Python reads a source's bytecode only where it names the source's own time and size."""
    script = Path(__file__).parent / "uncompiled.py"
    words = docker("run", "--rm", "--volume", f"{script}:{script}:ro", image, "python", str(script)).split()
    assert int(words[0]) > 1000 and words[1:] == []


def test_an_image_that_is_not_to_be_had_is_named_in_the_last_line(tmp_path: Path, inputs: Path) -> None:
    options = ("-profile", "docker", "--gpus", "0", "--container_registry", "127.0.0.1:9/lab")
    run = run_pipeline(tmp_path, *options, inputs=inputs, python_env=None)
    assert run.code == 125, run.output
    last = run.output.splitlines()[-1]
    assert last.startswith("No results: docker: ")
    assert f"; 127.0.0.1:9/lab/{EMBED_IMAGE} is neither here nor to be pulled: check --container_registry" in last


def test_triton_can_compile_in_the_embed_image() -> None:
    """For GPUs that are not here: a kernel to machine code, and its launcher by the C compiler, as anyone's user."""
    script = Path(__file__).parent / "compile_kernel.py"
    options = ["--init", "--read-only", "--tmpfs", "/tmp:exec", "--user", f"{NAMELESS}:{NAMELESS}"]
    options += ["--env", "TRITON_CACHE_DIR=/tmp/triton", "--volume", f"{script}:{script}:ro", "--workdir", "/tmp"]
    words = docker("run", "--rm", *options, EMBED_IMAGE, "python", str(script)).split()
    assert words == ["sm_80", "sm_90", "sm_100", "launcher"]


def test_a_stopped_run_leaves_no_container(tmp_path: Path, long_inputs: Path) -> None:
    command = pipeline_command("-profile", "docker", "--gpus", "0", inputs=long_inputs, python_env=None)
    with (tmp_path / "output").open("w") as output:
        run = subprocess.Popen(command, cwd=tmp_path, env=pipeline_environment(), stdout=output, stderr=output)
        try:
            wait_until(lambda: "EMBED_SHARD" in (tmp_path / "output").read_text(), 120, "a shard is started")
            wait_until(lambda: containers() != [], 30, "its container runs")
        finally:
            run.send_signal(signal.SIGTERM)
            run.wait(timeout=60)
    wait_until(lambda: containers() == [], 30, "every container has gone")


@pytest.mark.slurm
@needs_slurm
def test_under_slurm_a_container_gets_the_jobs_own_device(tmp_path: Path, inputs: Path, local: Run) -> None:
    with cluster(tmp_path, "constrained", SLURM / "engines") as environment:
        run = run_pipeline(
            tmp_path / "run",
            *("-profile", "slurm,docker", "--gpus", "0", "--shard_residues", "480"),
            inputs=inputs,
            environment=environment,
            configs=(SLURM / "cluster.config",),
            python_env=None,
        )
    assert run.code == 0, run.output
    assert run.vectors() == local.vectors()
    seen = devices_of_containers(tmp_path / "run")
    assert len(seen) == 3
    assert all(row["container"] == f"device={row['job']}" for row in seen), seen
    # Every job counts its device from 0; by that number all containers would share one.
    assert {row["visible"] for row in seen} == {"0"} and len({row["job"] for row in seen}) > 1
    assert containers() == []


@pytest.mark.slurm
@needs_slurm
def test_a_cancelled_job_leaves_no_container(tmp_path: Path, long_inputs: Path) -> None:
    with cluster(tmp_path, "constrained", SLURM / "engines") as environment:
        command = pipeline_command(
            *("-profile", "slurm,docker", "--gpus", "0"),
            inputs=long_inputs,
            configs=(SLURM / "cluster.config",),
            python_env=None,
        )
        everything = pipeline_environment(environment)
        with (tmp_path / "output").open("w") as output:
            run = subprocess.Popen(command, cwd=tmp_path, env=everything, stdout=output, stderr=output)
            try:
                wait_until(lambda: devices_of_containers(tmp_path) != [], 120, "a container is asked for")
                wait_until(lambda: len(containers()) == 1, 30, "it runs")
                first = containers()
                job = devices_of_containers(tmp_path)[0]
                subprocess.run(["scancel", job["id"]], env=everything, check=True)
                wait_until(lambda: not set(first) & set(containers()), 25, "the cancelled job's container has gone")
            finally:
                run.send_signal(signal.SIGTERM)
                run.wait(timeout=60)
        wait_until(lambda: containers() == [], 40, "every container has gone")
