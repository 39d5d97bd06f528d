"""nextflow_schema.json against what it repeats: config.py, nextflow.config and the model registry."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from schema_parameters import PROPERTIES, SCHEMA

from virnucpro import __version__, config
from virnucpro.config import CompileConfig, EmbedConfig, SplitConfig, VectorConfig
from virnucpro.merge.config import MergeConfig
from virnucpro.model.registry import MODELS

PROJECT = Path(__file__).parents[1]
CONFIG = (PROJECT / "nextflow.config").read_text()
CHANGELOG = (PROJECT / "CHANGELOG.md").read_text()


def config_parameters() -> dict[str, str]:
    (block,) = re.findall(r"^params \{\n(.*?)^\}", CONFIG, re.DOTALL | re.MULTILINE)
    plain = re.sub(r"= params\.getOrDefault\('\w+', (.*)\)$", r"= \1", block, flags=re.MULTILINE)
    return dict(re.findall(r"^    (\w+) = (.*)$", plain, re.MULTILINE))


def python_defaults() -> dict[str, object]:
    """Defaults of the tools under the pipeline's names for them."""
    found = {each.name: each.default for owner in (MergeConfig, EmbedConfig, SplitConfig) for each in fields(owner)}
    comma = {name: ",".join(map(str, getattr(EmbedConfig, name))) for name in ("layers", "pooling")}
    return {**found, **comma, "dedup": found["deduplicate"]}


def test_every_parameter_is_in_a_group_of_the_schema() -> None:
    assert {each["$ref"] for each in SCHEMA["allOf"]} == {f"#/$defs/{name}" for name in SCHEMA["$defs"]}


def test_the_schema_is_one_as_nf_schema_reads_them() -> None:
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert SCHEMA["$id"] == "nextflow_schema.json"
    Draft202012Validator.check_schema(SCHEMA)
    formats = {name: rule["format"] for name, rule in PROPERTIES.items() if "format" in rule}
    assert set(formats.values()) <= {"file-path", "directory-path", "path"}
    assert {"sample_sheet", "outdir", "model", "model_cache", "reference", "python_env", "triton_cache"} == set(formats)
    checked = Draft202012Validator(SCHEMA)
    assert checked.is_valid({"gpus": 1, "outdir": "results"})
    assert not checked.is_valid({"gpus": "many"}) and not checked.is_valid({"max_length": 0})


def test_schema_and_config_name_the_same_parameters() -> None:
    assert set(PROPERTIES) == set(config_parameters())


@pytest.mark.parametrize("name", [name for name in PROPERTIES if name != "gpus"])
def test_config_sets_the_default_of_the_schema(name: str) -> None:
    default = PROPERTIES[name].get("default")
    written = "null" if default is None else f"'{default}'" if isinstance(default, str) else json.dumps(default)
    assert config_parameters()[name] == written


PASSED = {name: rule["tools"] for name, rule in PROPERTIES.items() if "tools" in rule}
CONFIGURATIONS = {
    "split_fasta.py": SplitConfig,
    "compile_kernels.py": CompileConfig,
    "embed_shard.py": EmbedConfig,
    "merge_embeddings.py": MergeConfig,
}


@pytest.mark.parametrize("name", [*PASSED, "dedup", "token_budget"])
def test_defaults_are_those_of_the_tools(name: str) -> None:
    assert PROPERTIES[name].get("default") == python_defaults()[name]


def test_what_is_passed_on_is_an_option_of_the_tool() -> None:
    assert len(PASSED) > 9
    for name, tools in PASSED.items():
        for tool in tools:
            assert name in {each.name for each in fields(CONFIGURATIONS[tool]) if each.metadata}, (name, tool)


def test_every_option_that_decides_what_a_vector_is_reaches_split_and_embed() -> None:
    for each in fields(VectorConfig):
        assert {"split_fasta.py", "embed_shard.py"} <= set(PASSED[each.name])


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("alphabet", config.ALPHABETS),
        ("translate", config.TRANSLATIONS),
        ("precision", config.PRECISIONS),
        ("long_sequences", config.LONG_SEQUENCES),
        ("gaps", config.GAPS),
        ("embedding_dtype", config.EMBEDDING_DTYPES),
        ("provenance", config.PROVENANCES),
        ("genetic_code", config.GENETIC_CODES),
    ],
)
def test_choices_are_those_of_the_tools(name: str, choices: tuple[str | int, ...]) -> None:
    assert PROPERTIES[name]["enum"] == list(choices)


def test_pooling_takes_the_tools_choices_and_no_other() -> None:
    pattern = re.compile(PROPERTIES["pooling"]["pattern"])
    assert all(pattern.fullmatch(word) for word in (*config.POOLINGS, ",".join(config.POOLINGS)))
    assert not pattern.fullmatch("median")


def test_the_models_offered_are_the_registry() -> None:
    assert PROPERTIES["model"]["examples"] == list(MODELS)
    assert PROPERTIES["model"]["default"] in MODELS


def test_one_version() -> None:
    assert re.findall(r"^    version = '(.*)'$", CONFIG, re.MULTILINE) == [__version__]
    assert f"\n## {__version__} " in CHANGELOG
    assert f"\nversion: {__version__}\n" in (PROJECT / "CITATION.cff").read_text()
