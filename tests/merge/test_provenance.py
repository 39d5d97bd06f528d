"""The record of a run: what it tells by default, of paths, user and host if asked, and of files by their digests."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from descriptions import describe
from merge_runs import Run

from virnucpro import __version__
from virnucpro.merge.merge import merge
from virnucpro.merge.verify import verify
from virnucpro.output.contracts import SplitSummary
from virnucpro.output.digest_list import read_digests
from virnucpro.output.inputs import InputFile

TOLD = {
    "command": "nextflow run virnucpro-embed --input=few.fasta",
    "started": "2026-11-27T10:00:00Z",
    "nextflow_version": "25.04.4",
    "commit": "0f" * 20,
    "launched": "alice@node-7.example:/home/alice/virus work",
}
INPUTS = [
    InputFile(name="/home/alice/data/a.fasta", size=7, digest="1" * 32),
    InputFile(name="s3://alice/b.fasta.gz", size=8, digest="2" * 32),
    InputFile(name="standard input", size=None, digest=None),
]


def record(run: Run, **told: Any) -> dict[str, dict[str, Any]]:
    """The entities of the record by their ids, each of which is there once, as is all that they refer to."""
    split = replace(SplitSummary.read(run.folder / "split_summary.json"), inputs=INPUTS)
    split.write(run.folder / "split_summary.json")
    merge(run.config(**{**TOLD, **told}))
    content = json.loads((run.folder / "results" / "ro-crate-metadata.json").read_text())
    assert content["@context"] == [
        "https://w3id.org/ro/crate/1.1/context",
        "https://w3id.org/ro/terms/workflow-run/context",
    ]
    entities = {each["@id"]: each for each in content["@graph"]}
    assert len(entities) == len(content["@graph"])
    referred = {each["@id"] for entity in entities.values() for value in entity.values() for each in _references(value)}
    assert referred - {"https://w3id.org/ro/crate/1.1"} <= entities.keys()
    assert {"ro-crate-metadata.json", *referred} >= entities.keys()
    return entities


def _references(value: Any) -> list[dict[str, str]]:
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]


def test_files_are_told_by_their_names_and_digests(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, None, 1, 0], shards=2, residues=True)
    entities = record(run)
    results = tmp_path / "results"
    digests = read_digests(results)
    files = {name: each for name, each in entities.items() if each["@type"] == "File"}
    assert files.keys() == {*digests, "digests.xxh128"} - {"ro-crate-metadata.json"}
    for name in files.keys() - {"digests.xxh128"}:
        assert files[name]["identifier"] == f"xxh3_128:{digests[name]}"
        assert files[name]["contentSize"] == str((results / name).stat().st_size)
    assert {each["@id"] for each in entities["./"]["hasPart"]} == files.keys()
    assert entities["#run"]["result"] == entities["./"]["hasPart"]
    assert verify(results).files == len(digests)


def test_the_run_is_told_without_paths_user_and_host(tmp_path: Path) -> None:
    entities = record(Run(tmp_path / "bob", [0, 1]))
    text = (tmp_path / "bob" / "results" / "ro-crate-metadata.json").read_text()
    assert not [word for word in ("alice", "node-7", "home", "bob", str(tmp_path)) if word in text]
    run = entities["#run"]
    assert (run["description"], run["startTime"]) == (TOLD["command"], TOLD["started"])
    assert run["endTime"] == entities["./"]["datePublished"] == "2026-11-27T10:01:00+00:00"
    inputs = [entities[f"#input-{number}"] for number in (1, 2, 3)]
    assert [each["name"] for each in inputs] == ["a.fasta", "b.fasta.gz", "standard input"]
    assert [each.get("identifier") for each in inputs] == [f"xxh3_128:{'1' * 32}", f"xxh3_128:{'2' * 32}", None]
    assert [each.get("contentSize") for each in inputs] == ["7", "8", None]
    assert {each["@id"] for each in run["object"]} >= {"#input-1", "#input-2", "#input-3", "#model"}
    parameters = {each["name"]: each["value"] for each in entities.values() if each["@type"] == "PropertyValue"}
    assert parameters == {
        **{"precision": "fp32", "layers": "6", "pooling": "mean", "max_length": 30, "long_sequences": "truncate"},
        **{"window_overlap": "none", "embedding_dtype": "float32", "attention": "twin", "device_name": "H100"},
    }
    versions = {each["name"]: each["softwareVersion"] for each in entities.values() if "softwareVersion" in each}
    assert versions.keys() == {"virnucpro-embed", "Nextflow", "Python", "PyTorch", "PyArrow", "NumPy"}
    expected = {"virnucpro-embed": __version__, "Nextflow": "25.04.4", "PyTorch": "2.11", "PyArrow": pa.__version__}
    assert versions.items() >= expected.items()
    assert entities["#virnucpro-embed"]["identifier"] == TOLD["commit"]


def test_paths_user_and_host_are_told_if_asked_for(tmp_path: Path) -> None:
    entities = record(Run(tmp_path, [0, 1]), provenance="full")
    assert [entities[f"#input-{number}"]["name"] for number in (1, 2)] == [each.name for each in INPUTS[:2]]
    (agent,), (place,) = entities["#run"]["agent"], entities["#run"]["location"]
    assert (entities[agent["@id"]]["@type"], entities[agent["@id"]]["name"]) == ("Person", "alice")
    where = entities[place["@id"]]
    assert (where["name"], where["description"]) == ("node-7.example", "/home/alice/virus work")


def test_no_record_where_none_is_asked_for(tmp_path: Path) -> None:
    merge(Run(tmp_path, [0, 1]).config(provenance="none"))
    assert "ro-crate-metadata.json" not in read_digests(tmp_path / "results")
    assert not (tmp_path / "results" / "ro-crate-metadata.json").exists()
    assert verify(tmp_path / "results").rows == 2


@pytest.mark.parametrize("files", [["model.safetensors"], ["a.safetensors", "b.safetensors"]])
def test_the_weights_are_told_by_their_digest(files: list[str], tmp_path: Path) -> None:
    run = Run(tmp_path, [0])
    described = replace(describe(), files=files, revision="abc")
    described.write(tmp_path / "model.json")
    model = record(run)["#model"]
    assert (model["name"], model["version"]) == (described.name, "abc")
    if len(files) == 1:
        assert model["sha256"] == described.weights_sha256 and "identifier" not in model
    else:
        told = f"sha256 of the sha256sum of a.safetensors, b.safetensors: {described.weights_sha256}"
        assert model["identifier"] == told and "sha256" not in model


def test_a_run_that_embedded_nothing_and_was_told_nothing_has_a_record(tmp_path: Path) -> None:
    entities = record(Run(tmp_path, [None]), **dict.fromkeys(TOLD), ended=None)
    assert datetime.now(UTC) - datetime.fromisoformat(entities["#run"]["endTime"]) < timedelta(minutes=1)
    assert {"startTime", "description", "agent"}.isdisjoint(entities["#run"])
    assert "PyTorch" not in {each.get("name") for each in entities.values()}


def test_a_changed_record_is_no_longer_what_was_written(tmp_path: Path) -> None:
    record(Run(tmp_path, [0]))
    path = tmp_path / "results" / "ro-crate-metadata.json"
    path.write_text(path.read_text().replace("a.fasta", "z.fasta"))
    with pytest.raises(Exception, match=r"ro-crate-metadata\.json: not as it was written"):
        verify(tmp_path / "results")
