"""What the record of a run without Nextflow tells of its command."""

from __future__ import annotations

import getpass
import os
import platform
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from virnucpro.api.config import RunConfig
from virnucpro.api.provenance import facts_of_run

INPUTS = (Path("/home/alice/my data/a.fasta"), Path("b.fasta"))


def config(provenance: str) -> RunConfig:
    return RunConfig(
        inputs=INPUTS,
        outdir=Path("/scratch/alice/out"),
        model="/models/esm2.pt",
        model_cache=Path("/home/alice"),
        layers=(3, -1),
        reuse=(Path("/old/results"), Path("older")),
        gpus=0,
        neighbours=5,
        self_check=False,
        report=False,
        provenance=provenance,
    )


def test_the_command_is_told_without_folders() -> None:
    told = facts_of_run(config("names"))
    assert told["launched"] is None
    assert told["command"] is not None
    program, options = told["command"].split(" b.fasta ")
    assert program == "virnucpro embed a.fasta"
    assert sorted(options.split()) == [
        *("--gpus=0", "--layers=3,-1", "--model=esm2.pt", "--neighbours=5", "--no-report", "--no-self-check"),
        "--reuse=results,older",
    ]
    assert told["started"] is not None
    assert datetime.now(UTC) - datetime.fromisoformat(told["started"]) < timedelta(minutes=1)


def test_a_repository_of_the_hub_keeps_its_whole_name() -> None:
    told = facts_of_run(replace(config("names"), model="facebook/esm2_t6_8M_UR50D", reference=Path("/old/results")))
    assert told["command"] is not None
    assert {"--model=facebook/esm2_t6_8M_UR50D", "--reference=results"} <= set(told["command"].split())


def test_a_value_that_names_no_file_is_told_whole() -> None:
    columns = {"id_column": "Entry/Name", "sequence_column": "a/b,c"}
    told = facts_of_run(replace(config("names"), inputs=(Path("/home/a,b/c.tsv"),), **columns))
    assert told["command"] is not None
    assert told["command"].startswith("virnucpro embed c.tsv ")
    assert {"--id-column=Entry/Name", "--sequence-column=a/b,c"} <= set(told["command"].split())


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert str(facts_of_run(config("full"))["launched"]).startswith(f"{os.getuid()}@")


def test_the_command_is_told_with_its_folders_if_asked_for() -> None:
    told = facts_of_run(config("full"))
    assert told["launched"] == f"{getpass.getuser()}@{platform.node()}:{Path.cwd()}"
    assert told["command"] is not None
    assert told["command"].startswith("virnucpro embed '/home/alice/my data/a.fasta' b.fasta ")
    options = {"--outdir=/scratch/alice/out", "--model=/models/esm2.pt", "--model_cache=/home/alice".replace("_", "-")}
    assert options | {"--reuse=/old/results,older"} <= set(told["command"].split())
