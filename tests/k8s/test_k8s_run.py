"""From FASTA to results in pods, on a stand-in for a cluster: what is asked of it, what a pod sees, what is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from kube_cluster import GPU, RIGHTS
from kube_node import why_not
from kube_pods import Pod
from kube_run import GROUP, ON_CPU, REGISTRY, USER, Site, recorded, site
from model.hub_server import serve
from model.official_models import save_official
from runtimes.pipeline_run import EMBED_IMAGE, PROJECT, TOOLS_IMAGE, Run, copy_project
from warned import warnings

pytestmark = [pytest.mark.k8s, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

TOOLS = ("SPLIT_FASTA", "MERGE_EMBEDDINGS", "REPORT")
SIX = ("--shard_residues", "240", "--report", "false")


def process_of(pod: Pod) -> str:
    return pod.labels["nextflow.io/processName"]


def test_the_documented_role_is_the_one_that_runs_here_have() -> None:
    page = (PROJECT / "docs" / "clouds.md").read_text()
    manifest = next(text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "kind: Role\n" in text)
    role = next(part for part in yaml.safe_load_all(manifest) if part["kind"] == "Role")
    pairs = {(verb, what) for rule in role["rules"] for verb in rule["verbs"] for what in rule["resources"]}
    assert pairs == RIGHTS


def test_from_fasta_to_results(inputs: Path, local: Run) -> None:
    with site(inputs) as here:
        run = here.run("--shard_residues", "480", environment={"VIRNUCPRO_TEST_HOST": "of the launching host"})
        assert run.code == 0, run.output
        assert run.vectors() == local.vectors()
        assert warnings(run.output) == []
        assert (run.directory / "results" / "report" / "multiqc_report.html").exists()
        pods = here.cluster.pods
        assert sorted(map(process_of, pods)) == ["DESCRIBE_MODEL", *["EMBED_SHARD"] * 3, *sorted(TOOLS)]
        for pod in pods:
            assert_asks_for_what_it_needs(pod, here)
        assert here.cluster.alive() == [] and all(pod.removed for pod in pods)
        assert {path.lstat().st_uid for path in (here.volume / "work").rglob("*")} == {USER}
        facts = [path.read_text().splitlines() for path in (here.volume / "work").glob("*/*/pod_facts")]
        assert len(facts) == 3
        for lines in facts:
            assert_sees_nothing_of_the_host(lines, here)

        again = here.run("--shard_residues", "480", "-resume")
        assert again.code == 0, again.output
        assert {row["status"] for row in again.trace()} == {"CACHED"}
        assert len(here.cluster.pods) == len(pods) == 7


def assert_asks_for_what_it_needs(pod: Pod, here: Site) -> None:
    process = process_of(pod)
    image = TOOLS_IMAGE if process in TOOLS else EMBED_IMAGE
    shared = {"medium": "Memory"}
    assert pod.only["image"] == f"{REGISTRY}/{image}"
    if process == "EMBED_SHARD":
        amounts = {"memory": "16384Mi", GPU: 1}
        assert pod.only["resources"] == {"requests": {"cpu": 4, **amounts}, "limits": amounts}
        assert pod.spec["activeDeadlineSeconds"] == 4 * 3600
    else:
        requests = {"cpu": 4 if process == "SPLIT_FASTA" else 1, "memory": "2048Mi"}
        assert pod.only["resources"] == {"requests": requests, "limits": {"memory": "2048Mi"}}
        assert "activeDeadlineSeconds" not in pod.spec
    assert pod.spec["securityContext"] == {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": GROUP}
    assert pod.spec["automountServiceAccountToken"] is False
    assert pod.spec["serviceAccountName"] == "nextflow"
    assert pod.labels["app.kubernetes.io/name"] == "virnucpro-embed"
    assert pod.labels["nextflow.io/app"] == "nextflow"
    volumes = {volume.pop("name"): volume for volume in [dict(each) for each in pod.spec["volumes"]]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in pod.only["volumeMounts"]}
    claim = {"persistentVolumeClaim": {"claimName": "work"}}
    assert mounted == {str(here.volume): claim, "/dev/shm": {"emptyDir": shared}}


def assert_sees_nothing_of_the_host(lines: list[str], here: Site) -> None:
    facts = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("path="))
    paths = {Path(line.removeprefix("path=")) for line in lines if line.startswith("path=")}
    assert facts["identity"] == f"{USER}:{GROUP}"
    assert facts["NVIDIA_VISIBLE_DEVICES"] in here.cluster.devices
    assert int(facts["shared"]) > 64 * 1024, "a container runtime gives 64 MiB"
    assert "VIRNUCPRO_TEST_HOST" not in facts and str(here.head) not in facts.values()
    # Caches lie in the task's folder, which is on the volume.
    for cache in ("HF_HOME", "TORCH_HOME", "TRITON_CACHE_DIR", "XDG_CACHE_HOME"):
        assert Path(facts[cache]).is_relative_to(here.volume / "work"), cache
    parts = [*ON_CPU.folders(), here.volume, *(Path("/") / name for name in ("bin", "sbin", "lib", "lib64"))]
    own = {"proc", "dev", "tmp", "etc"}
    assert {path.name for path in paths if len(path.parts) == 2} == {*own, *(part.parts[1] for part in parts)}
    beside = {path for path in paths if path.is_relative_to("/var") and path != Path("/var")}
    assert beside == {here.volume, *here.volume.parents} - {Path("/"), Path("/var")}


def test_another_resource_than_whole_gpus_is_asked_for_by_its_name(inputs: Path, recordings: Path) -> None:
    """A pod with a request and no limit of it would be refused."""
    resource = "nvidia.com/mig-1g.10gb"
    with site(inputs, recorded(recordings)) as here:
        run = here.run("-stub", "--gpu_type", resource, "--report", "false")
        assert run.code == 0, run.output
        asked = [pod.only["resources"] for pod in here.cluster.of_task("EMBED_SHARD")]
        assert [(each["limits"][resource], each["requests"][resource]) for each in asked] == [(1, 1)] * 2
        assert not any(GPU in each["limits"] for each in asked)


def test_weights_are_fetched_by_a_pod_onto_the_volume(tmp_path: Path, inputs: Path) -> None:
    name = "esm2_t6_8M_UR50D"
    official = save_official(name, tmp_path / name, dense=True)
    with serve(f"facebook/{name}", official) as hub, site(inputs) as here:
        reached = f"env {{ HF_ENDPOINT = '{hub.address}'\nHF_HUB_OFFLINE = '0' }}\n"
        command = here.command("--report", "false", config=reached)
        command[command.index("--model") + 1] = name
        run = subprocess.run(command, **here.started(), capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stdout
        kept = here.volume / ".cache" / "virnucpro" / "models" / name
        assert (kept / "config.json").exists()
        staged = {path.resolve() for path in (here.volume / "work").glob(f"*/*/model/{name}")}
        assert staged == {kept}
        assert hub.fetched().count("model.safetensors") == 1


@pytest.mark.parametrize("kind", ["Pod", "Job"])
def test_ctrl_c_leaves_nothing_running_and_resume_computes_only_the_rest(
    kind: str, inputs: Path, recordings: Path, local: Run
) -> None:
    config = f"k8s.computeResourceType = '{kind}'\n"
    with site(inputs, recorded(recordings, seconds=60), devices=2) as here:
        with (here.head / "output").open("w") as output:
            command = ["env", "--default-signal", *here.command(*SIX, config=config)]
            streams = {"stdout": output, "stderr": output}
            run = subprocess.Popen(command, **here.started(), **streams, start_new_session=True)
            try:
                wait_until(lambda: len(programs_begun(here)) == 4, 120, "two shards run")
                wait_until(lambda: len(here.cluster.of_task("EMBED_SHARD")) == 6, 30, "the others wait")
            finally:
                os.killpg(run.pid, signal.SIGINT)
                run.wait(timeout=60)
        assert here.cluster.wait_until_idle() == []
        assert here.cluster.jobs == {}
        assert "No results: " in (here.head / "output").read_text()

        here.cluster.images.update(dict.fromkeys(here.cluster.images, recorded(recordings, seconds=0)))
        again = here.run("-resume", *SIX, config=config)
        assert again.code == 0, again.output
        statuses = {row["name"].split()[0]: row["status"] for row in again.trace()}
        assert statuses["DESCRIBE_MODEL"] == statuses["SPLIT_FASTA"] == "CACHED"
        assert again.vectors() == local.vectors()


def programs_begun(here: Site) -> list[Path]:
    """Of tasks whose programs began: DESCRIBE_MODEL and SPLIT_FASTA first, then shards."""
    return list((here.volume / "work").glob("*/*/.command.err"))


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("right", "what"),
    [
        (("create", "pods"), 'cannot create resource "pods" in API group "" in the namespace "lab"'),
        (("get", "pods/status"), 'cannot get resource "pods/status" in API group "" in the namespace "lab"'),
    ],
)
def test_an_account_without_rights_is_told_in_one_line_of_which(
    right: tuple[str, str], what: str, inputs: Path, recordings: Path
) -> None:
    with site(inputs, recorded(recordings), rights=RIGHTS - {right}) as here:
        run = here.run(*SIX)
        assert run.code == 1
        (line,) = [each for each in run.output.splitlines() if each.startswith("No results: ")]
        assert what in line and 'User "system:serviceaccount:lab:nextflow"' in line and "docs/clouds.md" in line
        assert here.cluster.wait_until_idle() == []


def test_what_no_pod_would_see_is_refused_before_any_is_made(inputs: Path, recordings: Path) -> None:
    with site(inputs, recorded(recordings)) as here:
        advice = f"pods see {here.volume} and nothing else of this machine; put it there"
        outside = here.head / "inputs"
        outside.mkdir()
        for file in ("few.fasta", "model.pt"):
            (outside / file).write_bytes((inputs / file).read_bytes())
        run = here.run(*SIX, inputs=outside)
        assert (run.code, f"--input {outside}/few.fasta: {advice}" in run.output) == (66, True), run.output

        project = copy_project(here.head / "project")
        run = here.run(*SIX, project=project)
        assert (run.code, f"error: {project}: {advice}" in run.output) == (66, True), run.output

        run = here.run(*SIX, config="k8s.storageClaimName = null\n")
        assert (run.code, "pods mount no volume; name a claim in k8s.storageClaimName" in run.output) == (66, True)

        run = here.run(*SIX, prefix=())
        assert (run.code, "started by root" in run.output) == (2, True), run.output
        assert here.cluster.pods == []
