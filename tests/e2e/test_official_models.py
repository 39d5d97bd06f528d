"""Each official name through the whole pipeline, from a hub on loopback that has models of the same shapes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from launch import PROJECT, Launch, launch
from model.hub_server import Hub, serve
from model.official_models import save_official

from virnucpro.model.registry import MODELS

DEFAULT = "esm2_t33_650M_UR50D"
#: Of a run without a GPU, for which no kernel is compiled.
PROCESSES = {
    name
    for module in PROJECT.glob("modules/*/main.nf")
    for name in re.findall(r"^process (\w+) \{", module.read_text(), re.MULTILINE)
} - {"COMPILE_KERNELS"}
#: On the CPU, in fp32, these two take more memory than a test may ask for: the split refuses the input before them.
TOO_LARGE_TO_EMBED = ("esm2_t36_3B_UR50D", "esm2_t48_15B_UR50D")
#: The five members of ESM-1v differ in their weights alone.
OTHER_MEMBERS = {f"esm1v_t33_650M_UR90S_{member}" for member in range(2, 6)}


def online(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0"}


def write_input(folder: Path, text: str = ">a\nMKVLAT\n>b\nMKV\n") -> Path:
    path = folder / "in.fasta"
    path.write_text(text)
    return path


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def described(run: Launch) -> dict[str, Any]:
    """What the tasks that came after the download were told of the model."""
    (hash_,) = re.findall(r"\[(\S+)\] (?:Submitted|Cached) process > DESCRIBE_MODEL", run.output)
    (file,) = (run.folder / "work").glob(f"{hash_}*/model.json")
    content = json.loads(file.read_text())
    assert isinstance(content, dict)
    return content


def assert_named_everywhere(run: Launch, name: str, sha256: str) -> None:
    metadata = pq.read_schema(run.results / "embeddings" / "part-00000.parquet").metadata[b"virnucpro"]
    origin = json.loads(metadata)
    summary = json.loads((run.results / "metrics" / "run_summary.json").read_text())
    assert (origin["model"], origin["weights_sha256"]) == (name, sha256)
    assert summary["model"]["name"] == described(run)["name"] == name
    vectors = pq.read_table(run.results / "embeddings")["embedding"].to_pylist()
    assert [len(vector) for vector in vectors] == [MODELS[name].embed_dim] * 2


def test_the_default_model_through_every_module_and_again_without_the_hub(tmp_path: Path) -> None:
    source = save_official(DEFAULT, tmp_path / "source")
    # Nextflow's own home stays what it is.
    home = {"HOME": str(tmp_path / "home"), "NXF_HOME": os.environ.get("NXF_HOME", str(Path.home() / ".nextflow"))}
    write_input(tmp_path)
    arguments = ["--input", "in.fasta", "--neighbours", "1"]
    kept = tmp_path / "home" / ".cache" / "virnucpro" / "models" / DEFAULT
    with serve(f"facebook/{DEFAULT}", source) as hub:
        first = launch(tmp_path, *arguments, environment=online(hub) | home)
        assert first.code == 0, first.output
        assert first.statuses() == {process: {"COMPLETED"} for process in PROCESSES}
        assert f"{DEFAULT}, to be fetched into {kept.parent}" in first.output
        assert hub.fetched() == ["config.json", "pytorch_model.bin"]
    assert {file.name: digest(file) for file in kept.iterdir()} == {
        file.name: digest(file) for file in source.iterdir()
    }
    assert_named_everywhere(first, DEFAULT, digest(source / "pytorch_model.bin"))
    assert DEFAULT in (first.results / "report" / "multiqc_report.html").read_text()

    # The same command goes on where the first stopped: a model kept is the model fetched.
    again = launch(tmp_path, *arguments, "-resume", environment=online(hub) | home)
    assert again.code == 0, again.output
    assert again.statuses() == {process: {"CACHED"} for process in PROCESSES - {"FETCH_MODEL"}}
    assert f"model   {kept}" in again.output


@pytest.mark.one_engine
@pytest.mark.parametrize("name", sorted(set(MODELS) - {DEFAULT, *TOO_LARGE_TO_EMBED, *OTHER_MEMBERS}))
def test_an_official_name_is_fetched_once(name: str, tmp_path: Path) -> None:
    small = name == "esm2_t6_8M_UR50D"
    source = save_official(name, tmp_path / "source", dense=small)
    (weights,) = {file.name for file in source.iterdir()} - {"config.json"}
    arguments = ["--input", write_input(tmp_path), "--model", name, "--model_cache", "models", "--report", "false"]
    with serve(f"facebook/{name}", source) as hub:
        first = launch(tmp_path, *arguments, environment=online(hub))
        assert first.code == 0, first.output
        assert first.statuses()["FETCH_MODEL"] == {"COMPLETED"}
        assert hub.fetched() == ["config.json", weights]
        assert_named_everywhere(first, name, digest(source / weights))
        if not small:
            return
        hub.requests.clear()
        second = launch(tmp_path, *arguments, "-resume", environment=online(hub))
        assert hub.requests == []
    assert second.code == 0, second.output
    assert second.statuses() == {process: {"CACHED"} for process in PROCESSES - {"FETCH_MODEL", "REPORT", "NEIGHBOURS"}}
    assert_named_everywhere(second, name, digest(source / weights))


@pytest.mark.one_engine
@pytest.mark.parametrize("name", TOO_LARGE_TO_EMBED)
def test_a_large_model_is_fetched_and_described(name: str, tmp_path: Path) -> None:
    source = save_official(name, tmp_path / "source")
    write_input(tmp_path, ">gene\n" + "ATGGCGTACGTTAGC" * 20 + "\n")
    with serve(f"facebook/{name}", source) as hub:
        run = launch(tmp_path, "--input", "in.fasta", "--model", name, "--model_cache", "m", environment=online(hub))
    assert run.code == 65, run.output
    assert "nucleotide sequences" in run.last_lines
    assert run.statuses() == {
        "FETCH_MODEL": {"COMPLETED"},
        "DESCRIBE_MODEL": {"COMPLETED"},
        "SPLIT_FASTA": {"FAILED"},
    }
    config = MODELS[name]
    model = described(run)
    assert (model["name"], model["weights_sha256"]) == (name, digest(source / "pytorch_model.bin"))
    assert (model["layers"], model["embed_dim"], model["heads"]) == (config.layers, config.embed_dim, config.heads)
    assert model["parameters"] == pytest.approx({"3B": 2.84e9, "15B": 15.1e9}[name.split("_")[2]], rel=0.01)
