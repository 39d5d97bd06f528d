"""What is said of a parameter or value that does not exist: by a script that asks the module as main.nf does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from launch import PROJECT, ask, launch

RULES: dict[str, dict[str, Any]] = {
    name: rule
    for group in json.loads((PROJECT / "nextflow_schema.json").read_text())["$defs"].values()
    for name, rule in group["properties"].items()
}
OWN = "that option is Nextflow's own and has one dash: "
NONE = "--help lists those that there are"
PARAMETERS = {
    "outdri": "did you mean --outdir?",
    "modle": "did you mean --model?",
    "outDir": "did you mean --outdir?",
    "maxLength": "did you mean --max_length?",
    "max-length": "did you mean --max_length?",
    "out": "did you mean --outdir?",
    "neighbors": "did you mean --neighbours?",
    "output": "did you mean --input or --outdir?",
    "gpu": "did you mean --gpus or --gpu_queue or --gpu_request?",
    "resume": OWN + "-resume",
    "workDir": OWN + "-work-dir",
    "withDocker": OWN + "-with-docker",
    "max_memory": NONE,
    "publish_dir_mode": NONE,
    "x": NONE,
}
VALUES = {
    ("precision", "fp7"): "; did you mean fp8?",
    ("precision", "FP16"): "; did you mean fp16?",
    ("gaps", "remvoe"): "; did you mean remove?",
    ("translate", "six-frame"): "; did you mean six_frame?",
    ("embedding_dtype", "float"): "; did you mean float32 or float16?",
    ("alphabet", "dna"): "",
    ("long_sequences", "drop"): "",
}
SCRIPT = """
include {{ meant ; unknown }} from '{module}'

workflow {{
    def asked = new groovy.json.JsonSlurper().parseText(file('{cases}').text)
    def told = asked.collect {{ name, known, ours -> ours ? unknown(name, known) : meant(name, known, '') }}
    file('{told}').text = groovy.json.JsonOutput.toJson(told)
}}
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    cases = [[name, list(RULES), True] for name in PARAMETERS]
    cases += [[value, RULES[name]["enum"], False] for name, value in VALUES]
    answered: list[str] = ask(tmp_path_factory.mktemp("suggestions"), SCRIPT, "parameters", cases)
    return answered


def test_of_a_parameter_the_nearest_is_named_where_one_is_near(told: list[str]) -> None:
    expected = [f"unknown parameter --{name}; {said}" for name, said in PARAMETERS.items()]
    assert told[: len(PARAMETERS)] == expected


def test_of_a_value_the_nearest_is_named_where_one_is_near(told: list[str]) -> None:
    assert told[len(PARAMETERS) :] == list(VALUES.values())


def test_of_a_profile_nextflow_names_the_nearest(tmp_path: Path) -> None:
    run = launch(tmp_path, "-profile", "slrum", "--input", "proteins.fasta")
    assert run.code == 1, run.output
    assert "Unknown configuration profile: 'slrum'" in run.output
    assert run.last_lines.split()[-1] == "slurm"
