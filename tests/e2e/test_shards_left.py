"""How far a run is while it embeds: by a script that asks the module as main.nf does, and in a run of two shards."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch import MODEL, PROJECT, ask, launch
from terminal import launch_on_terminal

MINUTE = 60_000


def finished(*milliseconds: float, together: int = 1, cached: int = 0) -> list[tuple[float, dict[str, int]]]:
    """Shards that finish so long after the split, each with Nextflow's count of tasks then."""
    return [(moment, {"together": together, "cached": cached}) for moment in milliseconds]


#: Number of shards, those that have finished, what is told of each.
CASES: list[tuple[int, list[tuple[float, dict[str, int]]], list[str | None]]] = [
    (
        3,
        finished(10 * MINUTE, 20 * MINUTE, 30 * MINUTE),
        [
            "1 of 3 shards embedded, about 20 minutes left for the others",
            "2 of 3 shards embedded, about 10 minutes left for the others",
            "3 of 3 shards embedded",
        ],
    ),
    # Two at once: the second finishes with the first, and no line stands within ten seconds of another.
    (
        5,
        finished(10 * MINUTE, 10 * MINUTE + 9_999, 20 * MINUTE, 20 * MINUTE + 10_000, 30 * MINUTE, together=2),
        [
            "1 of 5 shards embedded, about 20 minutes left for the others",
            None,
            "3 of 5 shards embedded, about 10 minutes left for the others",
            "4 of 5 shards embedded, about 10 minutes left for the others",
            "5 of 5 shards embedded",
        ],
    ),
    # As many at once as there are shards.
    (
        2,
        finished(10 * MINUTE, 11 * MINUTE, together=2),
        ["1 of 2 shards embedded, the others under way", "2 of 2 shards embedded"],
    ),
    # Shards that -resume kept say nothing of the time; nor does the count of a Nextflow that has none.
    (
        4,
        [*finished(1_000, 11_000, cached=2), *finished(10 * MINUTE, 20 * MINUTE, cached=2)],
        [
            None,
            "2 of 4 shards embedded",
            "3 of 4 shards embedded, about 10 minutes left for the others",
            "4 of 4 shards embedded",
        ],
    ),
    (2, [(MINUTE, {}), (2 * MINUTE, {})], ["1 of 2 shards embedded", "2 of 2 shards embedded"]),
    (1, finished(MINUTE), [None]),
    (2000, finished(*[5] * 1999), [None] * 1999),
]
SCRIPT = """
include {{ progress }} from '{module}'

workflow {{
    def cases = new groovy.json.JsonSlurper().parseText(file('{cases}').text)
    def told = cases.collect {{ shards, finished, _expected ->
        def seen = [:]
        def split = [shards: (1..shards).toList(), since: 1000000]
        finished.collect {{ moment, tasks -> progress(seen, split, tasks, split.since + moment) }}
    }}
    file('{told}').text = groovy.json.JsonOutput.toJson(told)
}}
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[list[str | None]]:
    answered: list[list[str | None]] = ask(tmp_path_factory.mktemp("progress"), SCRIPT, "plan", CASES)
    return answered


@pytest.mark.parametrize("case", range(len(CASES)))
def test_finished_shards_and_the_time_that_is_left_are_told(told: list[list[str | None]], case: int) -> None:
    assert told[case] == CASES[case][2]


def test_a_run_tells_its_last_shard_once_and_one_that_goes_on_counts_those_that_it_kept(tmp_path: Path) -> None:
    few = PROJECT / "tests" / "fixtures" / "few.fasta"
    arguments = ("--input", few, "--model", MODEL, "--report", "false", "--shard_residues", "700")
    for on, options, status in ((launch_on_terminal, (), "COMPLETED"), (launch, ("-resume",), "CACHED")):
        run = on(tmp_path, *arguments, *options)
        assert run.code == 0, run.output
        # A terminal is drawn anew again and again, with what was said of late.
        assert "2 of 2 shards embedded" in run.output
        assert on is not launch or run.output.count("2 of 2 shards embedded") == 1, run.output
        assert run.statuses()["EMBED_SHARD"] == {status}
        assert "No count of tasks" not in (tmp_path / ".nextflow.log").read_text()
