"""The sections of the page, before MultiQC draws them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from samples import sample_of

from virnucpro.report.device_series import DeviceSeries
from virnucpro.report.embedding_map import EmbeddingMap
from virnucpro.report.map_section import map_section
from virnucpro.report.sections import (
    MOST_BARS,
    device_sections,
    general_statistics,
    packing_section,
    parameter_section,
    record_sections,
    throughput_section,
    wait_sections,
)
from virnucpro.report.tallies import BatchTally, RecordTally


def embedding_map(names: list[str], *, not_finite: int = 0, equal: bool = False) -> EmbeddingMap:
    count = len(names)
    shards = np.array([-1] + [2] * (count - 1))
    sample = sample_of(np.zeros((count, 3)), ids=tuple(names), shards=shards, of=count + not_finite)
    points = np.arange(2 * count, dtype=np.float32).reshape(-1, 2)
    return EmbeddingMap(sample, points, (0.5, 0.25), not_finite, equal)


def test_names_from_a_fasta_cannot_end_the_script_or_become_markup() -> None:
    section = map_section(embedding_map(["</script><script>alert(1)</script>", "<b>bold</b>", "plain"]), [])
    assert section["data"].count("</script>") == 1
    assert "<b>" not in section["data"]
    assert "alert(1)" in section["data"]
    assert "reused" in section["data"]


def test_a_broken_embedding_is_said_in_bold() -> None:
    section = map_section(embedding_map(["a", "b"], not_finite=3, equal=True), [])
    assert "<strong>3 sampled vectors hold NaN" in section["description"].replace("  ", " ")
    assert "something is broken" in section["description"]
    assert "<strong>" not in map_section(embedding_map(["a", "b"]), [])["description"]


def test_general_statistics_leave_out_what_is_not_known() -> None:
    section = general_statistics([{"shard": 3, "sequences": 10, "tokens": 2_000_000, "energy_joules": None}])
    assert section["data"] == {"shard-00003": {"sequences": 10, "tokens": pytest.approx(2.0)}}
    assert set(section["headers"]) == {"sequences", "tokens"}


def test_many_shards_are_lines_and_few_are_bars() -> None:
    few = throughput_section([{"shard": n, "tokens_per_second": 10.0 * n + 1} for n in range(MOST_BARS)])
    many = throughput_section([{"shard": n, "tokens_per_second": 10.0 * n + 1} for n in range(MOST_BARS + 1)])
    assert few is not None and many is not None
    assert few["plot_type"] == "bargraph"
    assert many["plot_type"] == "linegraph"
    assert many["data"]["tokens/s"][:2] == [(0, 1.0), (1, 11.0)]
    assert throughput_section([]) is None


def test_the_cpu_stands_where_the_gpu_would() -> None:
    lines = {"utilization_percent": {"shard-00000": [(0.1, 50.0)]}, "memory_used_bytes": {"shard-00000": [(0.1, 2.0)]}}
    names = [
        section["section_name"] for section in device_sections(DeviceSeries({**lines, "power_watts": {}}), on_gpu=False)
    ]
    assert names == ["CPU utilisation", "CPU memory"]


def test_rare_reasons_are_put_together() -> None:
    tally = RecordTally(statuses=Counter(rejected=25), reasons=Counter({f"reason {n}": 1 for n in range(25)}))
    reasons = next(section for section in record_sections(tally) if section["id"] == "reasons")["data"]
    assert len(reasons) == 21
    assert reasons["other reasons"] == {"records": 5}


def test_nothing_computed_draws_nothing_of_batches() -> None:
    assert wait_sections(BatchTally()) == []
    assert packing_section(BatchTally()) is None


def test_parameters_are_escaped_and_lists_spelt_out() -> None:
    data = parameter_section({"layers": [6, 33], "cuda": None, "model": "<x>"})["data"]
    assert "6, 33" in data and "none" in data and "&lt;x&gt;" in data
    json.dumps(data)


def test_a_shards_deviation_stands_in_its_row_where_it_was_measured() -> None:
    rows = [{"shard": 0, "greatest_residue_l2": 3.1e-3}, {"shard": 1, "greatest_residue_l2": None}]
    section = general_statistics(rows)
    assert section["headers"]["greatest_residue_l2"]["suffix"] == " ppm"
    assert section["data"] == {"shard-00000": {"greatest_residue_l2": pytest.approx(3100.0)}, "shard-00001": {}}
    assert "greatest_residue_l2" not in general_statistics([{"shard": 0, "sequences": 1}])["headers"]


def test_what_is_cut_or_too_long_is_counted_beside_what_became_of_records() -> None:
    """A ledger of an earlier version does not tell of the latter, so the page says nothing of it."""
    for beyond in (2, 0, None):
        tally = RecordTally(Counter(embedded=3, rejected=1), truncated=1, beyond_trained_length=beyond)
        counts = {name: bar["records"] for name, bar in record_sections(tally)[0]["data"].items()}
        told = {} if beyond is None else {"beyond the trained length": beyond}
        fates = {"embedded": 3, "duplicate": 0, "reused": 0, "rejected": 1}
        assert counts == fates | {"truncated": 1} | told
