"""What can go wrong between Nextflow, an API server and nodes, and how each ends; as docs/clouds.md has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from kube_faults import CallFault, Faults, PodFault
from kube_node import limits_memory, why_not
from kube_run import Site, recorded, site
from runtimes.pipeline_run import Run

pytestmark = [pytest.mark.k8s, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

SIX = ("--shard_residues", "240", "--report", "false")
CALLS = r"/pods/[^/]+/status$"


def last_line(run: Run) -> str:
    (line,) = [each for each in run.output.splitlines() if each.startswith("No results: ")]
    return line


def memory_of_tries(here: Site, shard: int) -> list[str]:
    return [pod.only["resources"]["limits"]["memory"] for pod in here.cluster.of_task(f"EMBED_SHARD_shard-{shard:05}")]


def outcomes(run: Run) -> dict[str, str]:
    """Process or shard -> what became of it."""
    return {row["name"].split(",")[0].replace("EMBED_SHARD (", ""): row["status"] for row in run.trace()}


def test_lost_pods_go_again(inputs: Path, recordings: Path, local: Run) -> None:
    exits = {"evicted": "143", "evicted-at-once": "-", "node-shutdown": "143", "oom": "-"}
    # What comes without notice need not wait for a script that could take it.
    pods = [
        PodFault(f"EMBED_SHARD_shard-{shard:05}", what, after=0, begun=code == "143")
        for shard, (what, code) in enumerate(exits.items())
    ]
    faults = Faults(pods=pods)
    with site(inputs, recorded(recordings), devices=6, faults=faults) as here:
        run = here.run(*SIX)
        assert run.code == 0, run.output
        assert run.vectors() == local.vectors()
        for shard, code in enumerate(exits.values()):
            assert run.tries(f"shard-{shard:05}") == [("FAILED", code), ("COMPLETED", "0")]
            assert memory_of_tries(here, shard) == ["16384Mi", "32768Mi"]
        made = len(here.cluster.pods)
        again = here.run("-resume", *SIX)
        assert set(outcomes(again).values()) == {"CACHED"}
        assert len(here.cluster.pods) == made


@pytest.mark.parametrize("kind", ["Pod", "Job"])
def test_pods_of_which_no_status_is_left_go_again_and_once_more_on_resume(
    kind: str, inputs: Path, recordings: Path, local: Run
) -> None:
    """Nextflow keeps no record of such a try, or of what replaced it. A lost pod has no limit of tries; a job has."""
    whats = ("refused", "node-gone", "lost-image")
    faults = Faults(pods=[PodFault(f"EMBED_SHARD_shard-{shard:05}", what) for shard, what in enumerate(whats)])
    config = f"k8s.computeResourceType = '{kind}'\n"
    with site(inputs, recorded(recordings), devices=6, faults=faults) as here:
        run = here.run(*SIX, config=config)
        assert run.code == 0, run.output
        assert run.vectors() == local.vectors()
        uncounted = "16384Mi" if kind == "Pod" else "32768Mi"
        assert [memory_of_tries(here, shard)[1:] for shard in range(3)] == [["32768Mi"], [uncounted], ["32768Mi"]]
        # What could not pull its image stays, starts when it can, and is not used.
        assert here.cluster.wait_until_idle() == []
        made = len(here.cluster.pods)
        again = here.run("-resume", *SIX, config=config)
        assert again.code == 0, again.output
        made_again = sorted(name for name, status in outcomes(again).items() if status != "CACHED")
        assert made_again == ["MERGE_EMBEDDINGS (shards: 6)", *(f"shard-{shard:05}" for shard in range(3))]
        assert len(here.cluster.pods) == made + 4
        assert again.vectors() == local.vectors()


def test_exit_codes_and_limits(inputs: Path, recordings: Path, local: Run) -> None:
    fates = ["75", "74", "137", "hang", "hog" if limits_memory() else "137"]
    words = " ".join(f"shard-{shard:05}:1:{fate}" for shard, fate in enumerate(fates))
    config = (
        "process { withLabel: gpu { memory = { 800.MB * task.attempt }\n"
        "time = { task.attempt == 1 && task.tag.startsWith('shard-00003') ? '10 sec' : '1 h' } } }\n"
    )
    with site(inputs, recorded(recordings, faults=words), devices=6) as here:
        run = here.run(*SIX, config=config)
        assert run.code == 0, run.output
        assert run.vectors() == local.vectors()
        for shard, code in enumerate(["75", "74", "137", "143", "137"]):
            assert run.tries(f"shard-{shard:05}")[0][1] == code
            assert memory_of_tries(here, shard) == ["800Mi", "1600Mi"]
        assert run.tries("shard-00005") == [("COMPLETED", "0")]
        limits = [pod.spec["activeDeadlineSeconds"] for pod in here.cluster.of_task("EMBED_SHARD_shard-00003")]
        assert limits == [10, 3600]
        assert here.cluster.wait_until_idle() == []


def test_bad_data_ends_the_run_at_once(inputs: Path, recordings: Path) -> None:
    with site(inputs, recorded(recordings, faults="shard-00001:1:65"), devices=6) as here:
        run = here.run(*SIX)
        assert run.code == 65
        assert len(here.cluster.of_task("EMBED_SHARD_shard-00001")) == 1
        assert last_line(run) == "No results: embed_shard.py: error: as the test asked (65)"
        assert here.cluster.wait_until_idle() == []


def test_calls_that_fail_are_made_again(inputs: Path, recordings: Path, local: Run) -> None:
    faults = [CallFault("POST", "/pods$", 500), CallFault("POST", "/pods$", "reset"), CallFault("GET", CALLS, 500, 3)]
    faults += [CallFault("GET", CALLS, "reset", 2), CallFault("GET", CALLS, "silence"), CallFault("DELETE", "", 500)]
    with site(inputs, recorded(recordings), devices=6, faults=Faults(calls=faults)) as here:
        run = here.run(*SIX, config="k8s.httpReadTimeout = '2 sec'\n")
        assert run.code == 0, run.output
        assert run.vectors() == local.vectors()
        assert [fault.times for fault in faults] == [0] * len(faults)
        assert {pod.attempt for pod in here.cluster.pods} == {1}
        assert here.cluster.alive() == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (CallFault("POST", "/pods$", 429), "please try again later; run again with -resume"),
        (CallFault("GET", CALLS, 429), "please try again later; run again with -resume"),
        # Created, but the answer was lost: asked again, the server has it already.
        (CallFault("POST", "/pods$", "reset", done=True), "already exists; run again with -resume"),
        (CallFault("GET", CALLS, "broken off"), "K8s undetermined status conditions for pod nf-"),
        (CallFault("GET", CALLS, 500, times=9), "please try again later; run again with -resume"),
    ],
    ids=["submit-429", "status-429", "submit-409", "status-broken-off", "status-500"],
)
def test_calls_that_end_the_run_say_so_and_resume_goes_on(
    fault: CallFault, words: str, inputs: Path, recordings: Path, local: Run
) -> None:
    with site(inputs, recorded(recordings), devices=6, faults=Faults(calls=[fault])) as here:
        run = here.run(*SIX, config="k8s.maxErrorRetry = 2\n")
        assert run.code == 1
        assert words in last_line(run)
        assert here.cluster.wait_until_idle() == []
        fault.times = 0
        if fault.answer == 429:
            again = here.run("-resume", *SIX)
            assert again.code == 0, again.output
            assert again.vectors() == local.vectors()


def test_a_pod_that_waits_for_ever_is_given_up_where_a_site_says_so(inputs: Path, recordings: Path) -> None:
    faults = Faults(pods=[PodFault("EMBED_SHARD_shard-00000", "pending", tries=(1, 2, 3, 4))])
    with site(inputs, recorded(recordings), devices=6, faults=faults) as here:
        run = here.run(*SIX, config="process.maxSubmitAwait = '4 sec'\n")
        assert run.code == 1
        tries = here.cluster.of_task("EMBED_SHARD_shard-00000")
        assert len(tries) == 4 and all(pod.removed for pod in tries)
        assert "untolerated taint {nvidia.com/gpu: present}" in run.output
        assert "could not be submitted within specified 'maxAwait' time: 4s" in last_line(run)
        assert here.cluster.wait_until_idle() == []


def test_an_image_that_is_not_there_ends_the_run_after_four_tries(inputs: Path, recordings: Path) -> None:
    with site(inputs, recorded(recordings)) as here:
        run = here.run(*SIX, "--container_registry", "registry.example/other")
        assert run.code == 1
        assert 'image cannot be pulled -- failed to pull and unpack image "registry.example/other/' in last_line(run)
        assert len(here.cluster.pods) == 4
