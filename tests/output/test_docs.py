"""docs/output.md says what the files hold, and its snippets run."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from virnucpro.merge.merge import merge
from virnucpro.monitor.schema import BATCHES_SCHEMA, GPU_METRICS_SCHEMA, SHARDS_SCHEMA
from virnucpro.output.schema import (
    LEDGER_SCHEMA,
    NEIGHBOURS_SCHEMA,
    file_metadata,
    residues_schema,
    results_schema,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
from merge.merge_runs import Run, key, residues, vector

PAGE = (Path(__file__).parents[2] / "docs" / "output.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

SCHEMAS = {
    "embeddings/part-*.parquet": results_schema({"embedding": 4}, "float32", {}),
    "residues/part-*.parquet": residues_schema({"residues": 4}, {}),
    "neighbours.parquet": NEIGHBOURS_SCHEMA,
    "manifest.parquet": LEDGER_SCHEMA,
    "metrics/batches.parquet": BATCHES_SCHEMA,
    "metrics/gpu_metrics.parquet": GPU_METRICS_SCHEMA,
    "metrics/shards.parquet": SHARDS_SCHEMA,
}


def _rows(heading: str) -> list[list[str]]:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return rows[2:]


def _type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    names = {pa.float32(): "float32", pa.float64(): "float64", pa.string(): "string", pa.bool_(): "bool"}
    if pa.types.is_fixed_size_list(kind):
        return "fixed_size_list of float32 or float16"
    return names.get(kind, str(kind))


@pytest.mark.parametrize("heading", SCHEMAS)
def test_columns_and_types_are_those_of_the_schema(heading: str) -> None:
    documented = [(row[0].strip("`"), row[1]) for row in _rows(heading)]
    assert documented == [(field.name, _type(field.type)) for field in SCHEMAS[heading]]
    assert all(len(row) == 3 and row[2] for row in _rows(heading))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented")
    merge(Run(folder, [5, 6, 7, 5, None, 8], shards=2, residues=True).config())
    return folder


def test_summary_keys_are_documented(results: Path) -> None:
    import json

    summary = json.loads((results / "results" / "metrics" / "run_summary.json").read_text())
    documented = [key for row in _rows("metrics/run_summary.json") for key in re.findall(r"`(\w+)`", row[0])]
    assert sorted(documented) == sorted(summary)


def test_metadata_keys_are_documented() -> None:
    facts = dict.fromkeys(
        (
            "model",
            "model_revision",
            "weights_sha256",
            "precision",
            "attention",
            "layers",
            "pooling",
            "max_length",
            "long_sequences",
            "window_overlap",
            "torch",
            "cuda",
            "device_name",
            "greatest_residue_l2",
            "least_pooled_cosine",
        ),
        "",
    )
    text = PAGE.split("File metadata")[1].split("\n\n")[0]
    assert re.findall(r"`(\w+)`", text)[1:] == list(file_metadata(**facts))  # type: ignore[arg-type]


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippets_run_as_they_stand(results: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    snippet = SNIPPETS[number]
    packages = re.findall(r"^(?:import|from) (\w+)", snippet, re.MULTILINE)
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(results)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(results / "cache"))
    names: dict[str, object] = {}
    exec(compile(snippet, "docs/output.md", "exec"), names)
    if "matrix" in names and "neighbours" not in names:
        matrix = np.asarray(names["matrix"])
        kept = (5, 6, 7, 5, 8) if len(matrix) == 5 else (6, 5, 8)
        assert matrix.shape[1] == 3
        assert len(matrix) in (3, 4, 5)
        np.testing.assert_array_equal(matrix[0], vector(kept[0] if len(matrix) == 5 else 6, 3))
    if "states" in names and "means" not in names:
        states = np.asarray(names["states"])
        np.testing.assert_array_equal(states, residues(7 if "p2" in snippet else 5).astype(np.float16))
    if "means" in names:
        means = names["means"]
        assert isinstance(means, dict)
        assert sorted(means) == sorted(map(key, (5, 6, 7, 8)))
        np.testing.assert_array_equal(means[key(7)], residues(7).astype(np.float16).mean(axis=0, dtype=np.float32))
    if "nearest" in names:
        nearest = names["nearest"]
        assert isinstance(nearest, list)
        assert {name for name, _ in nearest[:2]} == {"p0", "p3"}
    if "neighbours" in names:
        neighbours = names["neighbours"]
        assert isinstance(neighbours, list)
        assert set(neighbours[0][0][:2].tolist()) == {0, 3}


def test_there_is_a_snippet_for_each_reader() -> None:
    text = "\n".join(SNIPPETS)
    for package in ("pandas", "polars", "duckdb", "datasets", "pyarrow"):
        assert f"import {package}" in text or f"from {package} import" in text
