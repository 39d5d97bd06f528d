"""What is said of a parameter or value that the schema does not have: of all of them in one start."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch import launch, refusals

Told = list[tuple[int, str] | None]
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
#: Parameter and value, and what is said of it at the end; at its beginning.
NEAREST = {
    ("precision", "fp7"): "did you mean fp8?",
    ("precision", "FP16"): "did you mean fp16?",
    ("gaps", "remvoe"): "did you mean remove?",
    ("translate", "six-frame"): "did you mean six_frame?",
    ("embedding_dtype", "float"): "did you mean float32 or float16?",
    ("alphabet", "dna"): "",
    ("long_sequences", "drop"): "",
}
VALUES = {
    ("max_length", "many"): "--max_length is 'many', but must be a whole number of at least ",
    ("gpus", "x"): "--gpus is 'x', but must be a whole number of at least 0",
    ("strict", "maybe"): "--strict is 'maybe', but must be true or false",
    ("alphabet", "dna"): "--alphabet is 'dna', but must be one of auto, protein",
    ("precision", "fp7"): "--precision is 'fp7', but must be one of fp16, bf16, fp32, fp8; did you mean fp8?",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    cases: list[dict[str, object]] = [{name: "x"} for name in PARAMETERS]
    cases += [{name: value} for name, value in [*NEAREST, *VALUES]]
    folder = tmp_path_factory.mktemp("suggestions")
    return refusals(folder, "parameters", "checkParameters(each, schema)", cases)


def test_of_a_parameter_the_nearest_is_named_where_one_is_near(told: Told) -> None:
    expected = [(2, f"unknown parameter --{name}; {said}") for name, said in PARAMETERS.items()]
    assert told[: len(PARAMETERS)] == expected


def test_of_a_value_the_nearest_is_named_where_one_is_near(told: Told) -> None:
    answers = told[len(PARAMETERS) :][: len(NEAREST)]
    for ((name, value), said), answer in zip(NEAREST.items(), answers, strict=True):
        code, message = answer or (0, "")
        beginning, _, near = message.partition("; ")
        assert (code, near) == (2, said)
        assert beginning.startswith(f"--{name} is '{value}', but must be one of ")


def test_a_value_is_refused_with_what_it_must_be(told: Told) -> None:
    for expected, answer in zip(VALUES.values(), told[len(PARAMETERS) + len(NEAREST) :], strict=True):
        code, message = answer or (0, "")
        assert code == 2
        assert message.startswith(expected)


def test_of_a_profile_nextflow_names_the_nearest(tmp_path: Path) -> None:
    run = launch(tmp_path, "-profile", "slrum", "--input", "proteins.fasta")
    assert run.code == 1, run.output
    assert "Unknown configuration profile: 'slrum'" in run.output
    assert run.last_lines.split()[-1] == "slurm"
