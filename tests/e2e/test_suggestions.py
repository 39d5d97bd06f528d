"""What is said of parameters and values that the schema does not have, or that do not go together: all in one start."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from launch import PROJECT, launch, refusals
from schema_parameters import PROPERTIES

from virnucpro.config import SplitConfig
from virnucpro.errors import UsageError

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
#: Parameter, value, of which a file of parameters can hold any, and what is said of it.
VALUES: list[tuple[str, object, str]] = [
    ("max_length", "many", "--max_length is 'many', but must be a whole number of at least "),
    ("gpus", "x", "--gpus is 'x', but must be a whole number of at least 0"),
    ("gpus", "1.5", "--gpus is '1.5', but must be a whole number of at least 0"),
    ("neighbours", "0", "--neighbours is '0', but must be a whole number of at least 1"),
    ("strict", "maybe", "--strict is 'maybe', but must be true or false"),
    ("alphabet", "dna", "--alphabet is 'dna', but must be one of auto, protein"),
    ("precision", "fp7", "--precision is 'fp7', but must be one of fp16, bf16, fp32, fp8; did you mean fp8?"),
    ("genetic_code", "7", "--genetic_code is '7', but must be one of 1, 2, 3, 4, 5, 6, 9, 10, 11,"),
    ("model_revision", "../main", "--model_revision is '../main', but must be a branch, tag or commit"),
    ("outdir", "true", "--outdir has no value; give one"),
    ("outdir", None, "--outdir is empty; leave it out for results"),
    ("outdir", ["a", "b"], "--outdir is '[a, b]', but must be one value"),
    ("triton_cache", {"a": 1}, "--triton_cache is '{a=1}', but must be one value"),
]
#: What does not go together, by pipeline and programs.
APART: list[dict[str, Any]] = [
    {"translate": "genes", "chunk": 300},
    {"genetic_code": 4},
    {"min_contig": 300},
    {"translate": "genes", "alphabet": "protein"},
    {"window_overlap": 5},
    {"long_sequences": "window", "window_overlap": 512},
    {"long_sequences": "window", "max_length": 21, "window_overlap": 11},
    {"id_column": "a"},
]
DEFAULTS = {name: rule["default"] for name, rule in PROPERTIES.items() if rule.get("default") is not None}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """The answers to the cases of each test here."""
    cases: dict[str, list[dict[str, object]]] = {
        "parameters": [{name: "x"} for name in PARAMETERS],
        "nearest": [{name: value} for name, value in NEAREST],
        "values": [{name: value} for name, value, _ in VALUES],
        "apart": [{**DEFAULTS, **given} for given in (*APART, {"device": "mps", "precision": "bf16"})],
    }
    folder = tmp_path_factory.mktemp("suggestions")
    answers = iter(refusals(folder, "parameters", "checkParameters(each, schema)", [*chain(*cases.values())]))
    return {test: [next(answers) for _ in given] for test, given in cases.items()}


def test_of_a_parameter_the_nearest_is_named_where_one_is_near(told: dict[str, Told]) -> None:
    assert told["parameters"] == [(2, f"unknown parameter --{name}; {said}") for name, said in PARAMETERS.items()]


def test_of_a_value_the_nearest_is_named_where_one_is_near(told: dict[str, Told]) -> None:
    for ((name, value), said), answer in zip(NEAREST.items(), told["nearest"], strict=True):
        code, message = answer or (0, "")
        beginning, _, near = message.partition("; ")
        assert (code, near) == (2, said)
        assert beginning.startswith(f"--{name} is '{value}', but must be one of ")


def test_a_value_is_refused_with_what_it_must_be(told: dict[str, Told]) -> None:
    for (_, _, expected), answer in zip(VALUES, told["values"], strict=True):
        code, message = answer or (0, "")
        assert code == 2
        assert message.startswith(expected)


def test_what_does_not_go_together_is_told_as_the_programs_tell_it(told: dict[str, Told]) -> None:
    *answers, of_apples_gpu = told["apart"]
    for given, answer in zip(APART, answers, strict=True):
        with pytest.raises(UsageError) as error:
            SplitConfig(inputs=(PROJECT / "assets" / "proteins.fasta",), model_json=Path(), **given)
        assert answer == (2, str(error.value))
    assert of_apples_gpu == (2, "--precision bf16 is not for Apple's GPU: use fp16 or fp32")


@pytest.mark.one_engine
def test_of_a_profile_nextflow_names_the_nearest(tmp_path: Path) -> None:
    run = launch(tmp_path, "-profile", "slrum", "--input", "proteins.fasta")
    assert run.code == 1, run.output
    assert "Unknown configuration profile: 'slrum'" in run.output
    assert run.last_lines.split()[-1] == "slurm"
