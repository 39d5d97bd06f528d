"""The record that a run leaves with its results, and who keeps it in mind: -resume, verify, later runs."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from launch import PROJECT, Launch, launch

from virnucpro.merge.verify import verify
from virnucpro.output.digests import file_digest

RECORD = "ro-crate-metadata.json"
#: The folder of all that the run is given, and its inputs.
SECRET, NAME, OTHER = "Kepler's, home", "my proteins.fasta", "other.fasta"


def entities(run: Launch) -> dict[str, Any]:
    return {each["@id"]: each for each in json.loads((run.results / RECORD).read_text())["@graph"]}


def options(folder: Path) -> list[str]:
    """The user's files, all in one folder."""
    cache = ["--model_cache", str(folder / SECRET / "cache"), "--report", "false", "--pooling", "mean,max"]
    given = f"{folder / SECRET / NAME},{folder / SECRET / OTHER}"
    return ["--input", given, "--model", str(folder / SECRET / "model"), *cache]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    folder = tmp_path_factory.mktemp("provenance")
    (folder / SECRET).mkdir()
    shutil.copyfile(PROJECT / "tests" / "fixtures" / "few.fasta", folder / SECRET / NAME)
    (folder / SECRET / OTHER).write_text(">other\nMKV\n")
    (folder / SECRET / "model").symlink_to(PROJECT / "assets" / "esm2_tiny")
    run = launch(folder, *options(folder))
    assert run.code == 0, run.output
    return run


def test_a_run_tells_what_it_was_and_not_where(run: Launch) -> None:
    text = (run.results / RECORD).read_bytes()
    user, host = getpass.getuser(), socket.gethostname()
    names = [SECRET, str(run.folder), str(PROJECT), "/tmp", "/home", f'"{user}"', f'"{host}"', f"{user}@", f"@{host}"]
    assert [name for name in names if name.encode() in text] == []
    found = entities(run)
    fasta = run.folder / SECRET / NAME
    assert found["#input-1"]["name"] == NAME
    assert found["#input-1"]["identifier"] == f"xxh3_128:{file_digest(fasta)}"
    assert found["#run"]["description"] == (
        "nextflow run virnucpro-embed '--input=my proteins.fasta,other.fasta' --report=false --model=model "
        "--pooling=mean,max --gpus=0"
    )
    assert found["#run"]["startTime"] < found["#run"]["endTime"]
    assert {each["name"] for each in found.values() if each["@type"] == "SoftwareApplication"} >= {
        *("virnucpro-embed", "Nextflow", "Python", "PyTorch"),
    }
    assert found["https://www.nextflow.io/"]["softwareVersion"] in run.output
    files = {name for name, each in found.items() if each["@type"] == "File"}
    assert sorted(files | {RECORD}) == run.published()
    assert verify(run.results).files == len(files)


@pytest.mark.one_engine
def test_another_run_may_tell_all_and_a_third_nothing(run: Launch) -> None:
    """Of what an earlier run left, no record stays that is not of the results."""
    before = (run.results / RECORD).read_bytes()
    again = launch(run.folder, *options(run.folder), "-resume")
    assert again.statuses()["MERGE_EMBEDDINGS"] == {"CACHED"}
    assert (again.results / RECORD).read_bytes() == before
    told = launch(run.folder, *options(run.folder), "--provenance", "full", "-resume")
    assert told.code == 0, told.output
    found = entities(told)
    assert found["#input-1"]["name"] == str(run.folder / SECRET / NAME)
    assert (found["#user"]["name"], found["#host"]["name"]) == (getpass.getuser(), socket.gethostname())
    assert found["#host"]["description"] == str(run.folder)
    assert found["#run"]["description"].startswith("nextflow") and str(PROJECT) in found["#run"]["description"]
    silent = launch(run.folder, *options(run.folder), "--provenance", "none", "-resume")
    assert silent.code == 0, silent.output
    assert not (silent.results / RECORD).exists()
    assert verify(silent.results).rows == 13
