"""What each profile sets, under both of Nextflow's configuration parsers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from gpu_locks import LOCKS
from pipeline_run import (
    EMBED_IMAGE,
    PROJECT,
    TOOLS_IMAGE,
    copy_project,
    nextflow_command,
    pipeline_environment,
    public_folder,
    read_only_containers,
    run_pipeline,
)
from warned import warnings

CLUSTERS = {"slurm": "slurm", "awsbatch": "awsbatch", "googlebatch": "google-batch", "k8s": "k8s"}
ENGINES = ("docker", "podman", "apptainer", "singularity")
PARSERS = ("v1", "v2")
STAND_INS = Path(__file__).parent / "stand_ins"
CALLS = "VIRNUCPRO_TEST_CALLS"


def told(folder: Path, parser: str, *words: str) -> str:
    """What Nextflow prints in the folder when it is asked so."""
    result = subprocess.run(
        [*nextflow_command(), *words],
        cwd=folder,
        env=pipeline_environment({"NXF_SYNTAX_PARSER": parser}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@cache
def settings(profile: str, parser: str, site: Path | None = None) -> str:
    """`nextflow config -flat` of a profile, with a site's own file over it."""
    over = [] if site is None else ["-c", str(site)]
    # With -c, `nextflow config` takes the folder it starts in for the project, and no other.
    return told(PROJECT, parser, *over, "config", "-flat", "-profile", profile)


def has(text: str, name: str, value: str) -> bool:
    return re.search(rf"^'?{re.escape(name)}'? = {value}", text, re.MULTILINE) is not None


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("profile", ["conda", *CLUSTERS, *ENGINES])
def test_no_profile_loses_what_gpu_tasks_ask_for(profile: str, parser: str) -> None:
    text = settings(profile, parser)
    values = {}
    for directive in ("ext.gpu", "cpus", "memory", "time", "accelerator"):
        (values[directive],) = re.findall(rf"^process\.{directive} = (.*(?:\n .*)*)", text, re.MULTILINE)
        assert f"task.process in {gpu_processes()}" in values[directive], directive
    # Of a scheduler alone: on this machine Nextflow 26.08 would give out devices itself.
    assert "(task.executor ?: 'local') != 'local' ?" in values["accelerator"]


def gpu_processes() -> list[str]:
    """The processes that have the label of our GPU tasks, by which a site's own file selects them."""
    modules = [path.read_text() for path in sorted((PROJECT / "modules").glob("*/main.nf"))]
    parts = [part for text in modules for part in re.split(r"^process (?=\w+ \{$)", text, flags=re.MULTILINE)[1:]]
    return [part.split()[0] for part in parts if "    label 'gpu'\n" in part]


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("profile", CLUSTERS)
def test_clusters_take_every_shard_at_once_and_any_size(profile: str, parser: str) -> None:
    text = settings(profile, parser)
    assert has(text, "process.executor", f"'{CLUSTERS[profile]}'")
    assert has(text, "process.maxForks", "0")
    assert has(text, "process.resourceLimits", r"\{ \[cpus: 10000, memory: '1 PB'\] \}")
    assert has(text, "params.gpus", "1")


@pytest.mark.parametrize("parser", PARSERS)
def test_clouds_share_memory_survive_spot_and_source_nothing_of_the_host(parser: str) -> None:
    for profile in ("awsbatch", "googlebatch", "k8s"):
        assert has(settings(profile, parser), "process.ext.before", "''")
    assert has(settings("awsbatch", parser), "process.containerOptions", "'--shm-size 4g'")
    assert has(settings("awsbatch", parser), "aws.batch.maxSpotAttempts", "3")
    assert has(settings("googlebatch", parser), "process.containerOptions", "'--shm-size 4g'")
    assert has(settings("googlebatch", parser), "google.batch.maxSpotAttempts", "3")
    assert has(settings("googlebatch", parser), "params.gpu_type", "'nvidia-l4'")
    assert "/dev/shm" in settings("k8s", parser)


def site_files() -> dict[str, str]:
    """The files that docs/clouds.md has users fill in for a cloud."""
    text = (PROJECT / "docs" / "clouds.md").read_text()
    blocks = re.findall(r"^For (AWS Batch|Google Batch|Kubernetes).*:\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    names = {"AWS Batch": "awsbatch", "Google Batch": "googlebatch", "Kubernetes": "k8s"}
    return {names[title]: block for title, block in blocks}


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (
            "awsbatch",
            {"aws.region": "'eu-west-1'", "aws.batch.cliPath": "'/opt/aws-cli/bin/aws'", "params.gpu_queue": "'gpu'"},
        ),
        (
            "googlebatch",
            {"google.project": "'my-project'", "google.batch.spot": "true", "params.gpu_type": "'nvidia-l4'"},
        ),
        ("k8s", {"k8s.storageClaimName": "'work'", "process.executor": "'k8s'"}),
    ],
)
def test_what_the_docs_have_users_fill_in_completes_a_cloud(
    profile: str, expected: dict[str, str], parser: str, tmp_path: Path
) -> None:
    site = tmp_path / "site.config"
    # Parser v2 of Nextflow 25.04 wants a profile declared in every file.
    site.write_text(f"profiles {{ {profile} {{ }} }}\n{site_files()[profile]}")
    text = settings(profile, parser, site)
    for name, value in {**expected, "process.maxForks": "0"}.items():
        assert has(text, name, value), name
    assert has(text, "params.container_registry", "'.+/.+'|'.+amazonaws.com'")
    assert has(text, "process.accelerator", r"\{\s+task\.process in ")


def test_parameters_in_a_sites_own_file_reach_the_tasks(tmp_path: Path, stub_inputs: Path) -> None:
    """The wrapper says so; the registry does not exist, so the run ends there."""
    site = tmp_path / "site.config"
    site.write_text("profiles { docker { } }\nparams.container_registry = 'registry.invalid/lab'\n")
    run = run_pipeline(
        tmp_path / "run",
        *("-stub", "--gpus", "0", "-profile", "docker"),
        inputs=stub_inputs,
        configs=(site,),
        python_env=None,
    )
    wrappers = [path.read_text() for path in (tmp_path / "run" / "work").glob("*/*/.command.run")]
    assert wrappers, run.output
    assert all(f" registry.invalid/lab/{EMBED_IMAGE} " in text for text in wrappers)


@pytest.mark.parametrize("parser", PARSERS)
def test_each_engine_gets_its_own_word_for_a_gpu(parser: str) -> None:
    words = {
        "docker": "--gpus device=$VIRNUCPRO_GPU",
        "podman": "--device nvidia.com/gpu=$VIRNUCPRO_GPU",
        "apptainer": "--nv",
        "singularity": "--nv",
    }
    for engine, word in words.items():
        text = settings(engine, parser)
        assert has(text, f"{engine}.enabled", "true")
        assert word in text
        # A container told its device counts from 0 again; a variable with another number would hide it.
        assert ("CUDA_VISIBLE_DEVICES" in text) == (engine in ("apptainer", "singularity"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_container_is_told_of_the_users_mirror_and_proxy(engine: str) -> None:
    (passed,) = re.findall(rf"^{engine}\.envWhitelist = '(.+)'", settings(engine, "v1"), re.MULTILINE)
    assert {"HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy", "NO_PROXY"} <= set(passed.split(","))


@pytest.mark.parametrize("parser", PARSERS)
def test_each_process_asks_for_its_image_of_the_pipelines_version(
    parser: str, tmp_path: Path, stub_inputs: Path
) -> None:
    given = [f"--input={stub_inputs / 'few.fasta'}", f"--model={stub_inputs / 'model.pt'}", "--gpus=0"]
    text = told(tmp_path, parser, "inspect", str(PROJECT / "main.nf"), "-profile", "docker", *given)
    found = json.JSONDecoder().raw_decode(text, text.index("{"))[0]["processes"]
    images = {each["name"]: each["container"] for each in found}
    assert {"DESCRIBE_MODEL", "EMBED_SHARD"} <= {name for name, image in images.items() if image == EMBED_IMAGE}
    assert {name for name, image in images.items() if image == TOOLS_IMAGE} == {
        *("SPLIT_FASTA", "MERGE_EMBEDDINGS", "REPORT")
    }
    assert set(images.values()) == {EMBED_IMAGE, TOOLS_IMAGE}


def test_selectors_stay_out_of_our_configuration() -> None:
    """Parser v1 replaces a selector's block by a profile's, v2 ignores the profile's, and 25.04's warns of all."""
    ours = [*(PROJECT / "conf").glob("*.config"), PROJECT / "nextflow.config"]
    assert len(ours) > 10 and not [path.name for path in ours if re.search("withLabel|withName", path.read_text())]


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("profile", ["demo", "test", "gpu", "conda", *CLUSTERS, *ENGINES, "slurm,apptainer"])
def test_no_profile_is_warned_of(profile: str, parser: str) -> None:
    assert warnings(settings(profile, parser)) == []


@pytest.mark.parametrize("profile", ["gpu", "slurm,docker"])
def test_no_run_is_warned_of(profile: str, tmp_path: Path, stub_inputs: Path) -> None:
    stand_ins = {"PATH": f"{STAND_INS}:{os.environ['PATH']}", CALLS: str(tmp_path / "calls")}
    run = run_pipeline(
        tmp_path / "run",
        *("-stub", "-profile", profile, "--gpus", "0"),
        inputs=stub_inputs,
        environment=stand_ins,
        python_env=None,
    )
    assert run.code == 0, run.output
    assert warnings(run.output) == []
    assert (tmp_path / "calls").exists() == ("docker" in profile)


def test_read_only_containers_run_from_a_clone_under_tmp(inputs: Path) -> None:
    """Docker refuses a mount point that is named twice: /tmp, where all that a task needs lies somewhere under it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as clone, public_folder() as public:
        ours = copy_project(Path(clone) / "clone")
        for file in ("model.pt", "few.fasta"):
            shutil.copy(inputs / file, public)
        calls = public / "calls"
        run = run_pipeline(
            public / "run",
            *("-profile", "docker", "--gpus", "0", "--report", "false"),
            inputs=public,
            environment={"PATH": f"{STAND_INS}:{Path(sys.executable).parent}:{os.environ['PATH']}", CALLS: str(calls)},
            configs=(read_only_containers(public),),
            python_env=None,
            project=ours,
        )
        assert run.code == 0, run.output
        runs = [words for words in map(json.loads, calls.read_text().splitlines()) if words[0] == "run"]
        assert len(runs) == 4 and all("--read-only" in words for words in runs)


def test_local_gpu_tasks_take_the_lock(tmp_path: Path, stub_inputs: Path) -> None:
    device = f"GPU-{tmp_path.name}"
    run = run_pipeline(
        tmp_path / "run",
        *("-stub", "--gpus", "1"),
        inputs=stub_inputs,
        environment={"CUDA_VISIBLE_DEVICES": device},
        python_env=None,
    )
    assert run.code == 0, run.output
    assert (LOCKS / device).exists()
    (LOCKS / device).unlink()
