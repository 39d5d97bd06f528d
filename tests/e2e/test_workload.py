"""What a run foretells, from the summary of its split: by a script that asks the module as main.nf does."""

from __future__ import annotations

from typing import Any

import pytest
from launch import ask

#: Operations that take an H100 ten minutes at the rate of the 650M model.
TEN_MINUTES = 535e12 * 600
REUSE = [
    {"results": "/home/ann/old", "used": False, "reason": "layers is 6 there and 5 here"},
    {"results": "/home/ann/fitting", "used": True, "reason": None},
]


def summary(costs: list[float], **counts: Any) -> dict[str, Any]:
    shards = [{"file": f"shard-{i}.fasta", "sequences": 1, "residues": 3, "cost": cost} for i, cost in enumerate(costs)]
    return {"records": 3, "embedded": 3, "card": "h100", "card_teraflops": 535, **counts, "shards": shards}


#: Summary of the split, parameters, what is told.
CASES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        summary([TEN_MINUTES] * 3),
        {"gpus": 2},
        "3 records: 3 distinct sequences to embed in 3 shards on 2 GPUs; about 30 minutes of GPU time on H100, "
        "20 minutes with all of them; 10 minutes a shard",
    ),
    (
        summary([TEN_MINUTES] * 4),
        {"gpus": 4},
        "3 records: 3 distinct sequences to embed in 4 shards on 4 GPUs; about 40 minutes of GPU time on H100, "
        "10 minutes with all of them; 10 minutes a shard",
    ),
    (
        summary([TEN_MINUTES], embedded=1, card=None, card_teraflops=53.5),
        {"gpus": 8},
        "3 records: 1 distinct sequence to embed in 1 shard on 8 GPUs; about 100 minutes of GPU time on a card "
        "of a fifth of an H100, as the card is not known, 100 minutes with all of them; 100 minutes a shard",
    ),
    (
        summary([TEN_MINUTES] * 2),
        {"gpus": 8},
        "3 records: 3 distinct sequences to embed in 2 shards on 8 GPUs; about 20 minutes of GPU time on H100, "
        "10 minutes with all of them; 10 minutes a shard\n"
        "Cut for the fewer GPUs of the run that goes on, so that its finished shards are kept: 2 of 8 GPUs work; "
        "without -resume all do",
    ),
    (summary([0]), {"gpus": 1}, "3 records: 3 distinct sequences to embed in 1 shard on 1 GPU"),
    (summary([5]), {"gpus": 0, "dedup": False}, "3 records: 3 sequences to embed in 1 shard on CPU"),
    (
        summary([5], records=1011, duplicate=2, reused=1005, rejected=1, reuse=REUSE),
        {"gpus": 0, "dedup": True},
        "1,011 records: 2 duplicate, 1,005 reused, 1 rejected, 3 distinct sequences to embed in 1 shard on CPU\n"
        "Not reused: /home/ann/old: layers is 6 there and 5 here",
    ),
    (
        summary([], embedded=0, reused=3),
        {"gpus": 1},
        "3 records: 3 reused, 0 distinct sequences to embed; nothing is computed",
    ),
]
SCRIPT = """
include {{ workload }} from '{module}'

workflow {{
    def cases = new groovy.json.JsonSlurper().parseText(file('{cases}').text)
    def told = cases.collect {{ each -> workload(each[0], each[1]) }}
    file('{told}').text = groovy.json.JsonOutput.toJson(told)
}}
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    answered: list[str] = ask(tmp_path_factory.mktemp("workload"), SCRIPT, "plan", CASES)
    return answered


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_work_is_told_in_the_right_numbers(told: list[str], case: int) -> None:
    assert told[case] == CASES[case][2]
