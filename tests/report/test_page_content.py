"""The page's sections of results at the edges: next to nothing, nothing finite, no readings, all at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic_results import Run, make_results

from virnucpro.report.report import page_content

#: Of every page, whatever the run is.
ALWAYS = ["verdict", "next_steps", "records", "parameters"]


def section_names(results: Path) -> list[str]:
    sections, _ = page_content(results)
    json.dumps(sections, allow_nan=False)
    return [section["id"] for section in sections]


def with_vectors(results: Path, vectors: np.ndarray) -> Path:
    (part,) = (results / "embeddings").glob("part-*.parquet")
    table = pq.read_table(part)
    place = table.schema.get_field_index("embedding")
    flat = pa.array(np.resize(vectors, (table.num_rows, vectors.shape[1])).astype(np.float32).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, type=table.schema.field(place).type)
    pq.write_table(table.set_column(place, table.schema.field(place), column), part)
    return results


@pytest.mark.parametrize("records", [0, 1, 2, 30])
def test_small_runs_have_what_can_be_told_of_them(records: int, tmp_path: Path) -> None:
    names = section_names(make_results(tmp_path / "results", Run(records=records, shards=min(records, 1), gpus=1)))
    assert [name for name in names if name in ALWAYS] == ALWAYS
    assert ("map" in names) == ("clusters" in names) == (records > 0)
    assert ("outliers" in names) == (records == 30) and ("length_map" in names) == (records == 30)
    assert ("run_time" in names) == (records > 0)


def test_vectors_that_are_not_finite_are_told_and_group_nothing(tmp_path: Path) -> None:
    results = with_vectors(make_results(tmp_path / "results", Run(records=100)), np.full((1, 16), np.nan))
    sections = {section["id"]: section for section in page_content(results)[0]}
    json.dumps(list(sections.values()), allow_nan=False)
    assert "98 sampled vectors hold NaN" in sections["map"]["description"]
    assert "98 sampled vectors are not finite" in sections["next_steps"]["data"]
    assert "no groups stand apart" in sections["clusters"]["description"]
    assert "outliers" not in sections and "length_map" not in sections


def test_equal_vectors_are_told_first(tmp_path: Path) -> None:
    results = with_vectors(make_results(tmp_path / "results", Run(records=100)), np.ones((1, 16)))
    steps = next(section for section in page_content(results)[0] if section["id"] == "next_steps")
    assert steps["data"].startswith("<ul><li>All sampled vectors are equal")


def test_without_energy_the_hours_alone_are_told(tmp_path: Path) -> None:
    sections, _ = page_content(make_results(tmp_path / "results", Run(records=200, on_gpu=False)))
    cost = next(section for section in sections if section["id"] == "run_time")["data"]
    assert "CPU-hours of this machine" in cost and "kWh" not in cost


def test_the_sections_are_in_the_order_in_which_one_reads(tmp_path: Path) -> None:
    assert section_names(make_results(tmp_path / "results", Run(records=1_000))) == [
        *("verdict", "next_steps", "shards", "map", "clusters", "outliers", "length_map", "run_time"),
        *("utilization", "power", "memory", "throughput", "time", "queue_states", "waited", "packing"),
        *("records", "reasons", "lengths", "parameters"),
    ]
