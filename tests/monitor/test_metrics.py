from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro.monitor.energy import Energy, Series, exclusive_windows
from virnucpro.monitor.metrics import (
    BatchRecord,
    LoaderMetrics,
    bottleneck,
    queue_state,
    utilization_by_stage,
    write_shard_metrics,
)
from virnucpro.monitor.probes import Sample
from virnucpro.monitor.schema import BATCHES_SCHEMA, GPU_METRICS_SCHEMA, SHARDS_SCHEMA
from virnucpro.output.contracts import ShardRun

KNOWN = ShardRun(
    shard=7,
    device_name="H100",
    device_uuid="GPU-aaaa",
    process_start=98.0,
    flops=3 * 10**15,
    matrix_teraflops_per_second=1000.0,
)


def _batch(batch: int, start: float, end: float, wait: float = 0.5, tokens: int = 1000) -> BatchRecord:
    return BatchRecord(batch, start, end, wait, queue_state(wait), 10, tokens, 200, 0.9, 0)


def _samples(power: float | None = 500.0, busy: float | None = 90.0, counter: bool = False) -> list[Sample]:
    times = [99.0 + i / 10 for i in range(61)]
    return [
        Sample(t, "", busy, 7 << 30, power, 1700, 60, "", 1000 + 480 * (t - 99.0) if counter else None) for t in times
    ]


@pytest.mark.parametrize(
    ("milliseconds", "state"),
    [(0.0, "full"), (0.999, "full"), (1.0, "normal"), (50.0, "normal"), (50.01, "starved"), (9e9, "starved")],
)
def test_queue_states(milliseconds: float, state: str) -> None:
    assert queue_state(milliseconds) == state
    assert LoaderMetrics().record_wait(milliseconds / 1e3) == queue_state(1e3 * (milliseconds / 1e3))


def test_statistics_have_every_name_that_the_loader_statistics_had() -> None:
    metrics = LoaderMetrics()
    for wait in [0.0001] * 18 + [0.02, 0.2]:
        metrics.record_wait(wait)
    records = [_batch(0, 0, 1), BatchRecord(1, 1, 2, 0, "full", 30, 3000, 400, 0.7, 1)]
    statistics = metrics.statistics(records)
    assert statistics["avg_wait_time_ms"] == pytest.approx((18 * 0.1 + 20 + 200) / 20)
    assert statistics["max_wait_time_ms"] == pytest.approx(200)
    assert statistics["min_wait_time_ms"] == pytest.approx(0.1)
    assert statistics["p95_wait_time_ms"] == pytest.approx(20)
    assert statistics["pct_starved"] == pytest.approx(5)
    assert statistics["queue_state_distribution"] == {"full": 18, "normal": 1, "starved": 1}
    assert statistics["total_batches"] == 2
    assert statistics["total_sequences"] == 40
    assert statistics["total_tokens"] == 4000
    assert statistics["avg_sequence_length"] == 100
    assert statistics["avg_max_length"] == 300
    assert statistics["packing_efficiency"] == pytest.approx(0.8)
    assert statistics["min_packing_efficiency"] == pytest.approx(0.7)


def test_the_wait_for_the_first_batch_is_no_starving() -> None:
    metrics = LoaderMetrics()
    assert metrics.record_startup(9.0) == "startup"
    metrics.record_wait(0.0002)
    metrics.record_wait(0.02)
    statistics = metrics.statistics()
    assert statistics["startup_wait_time_ms"] == 9000
    assert statistics["max_wait_time_ms"] == pytest.approx(20)
    assert statistics["pct_starved"] == 0
    assert statistics["queue_state_distribution"] == {"full": 1, "normal": 1, "starved": 0}
    only_one = LoaderMetrics().statistics([BatchRecord(0, 0, 1, 9000.0, "startup", 1, 10, 10)])
    assert only_one["pct_starved"] is only_one["p95_wait_time_ms"] is None


def test_statistics_of_nothing_are_null() -> None:
    statistics = LoaderMetrics().statistics()
    assert statistics["p95_wait_time_ms"] is None
    assert statistics["packing_efficiency"] is None
    assert statistics["total_batches"] == 0


@pytest.mark.parametrize(
    ("utilization", "severity"),
    [([49.9], "critical"), ([50.0], "mild"), ([79.9], "mild"), ([80.0], "none"), ([100, 0], "mild"), ([], "unknown")],
)
def test_verdict_thresholds(utilization: list[float], severity: str) -> None:
    assert bottleneck(utilization).severity == severity


@pytest.mark.parametrize(
    ("starved", "startup", "cause", "setting"),
    [
        (60.0, 0.1, "loader", "--workers"),
        (0.0, 0.1, "batches", "--token_budget"),
        (60.0, 0.5, "startup", "--shard_residues"),
        (None, None, "unknown", "waits"),
    ],
)
def test_verdict_names_the_cause_and_one_setting(
    starved: float | None, startup: float | None, cause: str, setting: str
) -> None:
    verdict = bottleneck([30.0], starved, startup)
    assert verdict.cause == cause
    assert setting in verdict.verdict


def test_a_cpu_is_not_told_to_make_larger_batches() -> None:
    verdict = bottleneck([30.0], 0.0, 0.1, on_gpu=False)
    assert verdict.cause == "cores"
    assert "raise `cpus`" in verdict.verdict
    assert bottleneck([30.0], 60.0, 0.1, on_gpu=False).cause == "loader"


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)).map(lambda pair: (pair[0], pair[0] + pair[1])), min_size=1)
)
def test_exclusive_windows_cover_the_union_once(windows: list[tuple[float, float]]) -> None:
    begin, end = exclusive_windows([a for a, _ in windows], [b for _, b in windows])
    assert (begin <= end).all()
    order = np.lexsort((begin, end))
    assert (begin[order][1:] >= end[order][:-1]).all()
    assert end.tolist() == [b for _, b in windows]


def test_integral_is_exact_for_a_straight_line() -> None:
    series = Series([0.0, 1.0, 4.0], [0.0, 10.0, 40.0])
    starts, ends = np.array([0.0, 0.5, 3.0, 2.0]), np.array([4.0, 1.5, 3.0, 4.0])
    np.testing.assert_allclose(series.integral(starts, ends), [80.0, 10.0, 0.0, 60.0])


def test_windows_far_from_every_reading_are_unknown() -> None:
    series = Series([10.0, 10.1], [100.0, 100.0])
    starts, ends = np.array([0.0, 10.0, 30.0]), np.array([1.0, 10.1, 31.0])
    for values in (series.integral(starts, ends), series.mean(starts, ends)):
        assert np.isnan(values).tolist() == [True, False, True]
    assert np.isnan(Series([], []).integral(starts, ends)).all()


def test_mean_takes_readings_inside_or_interpolates_between() -> None:
    series = Series([0.0, 1.0, 2.0], [0.0, 50.0, 100.0])
    np.testing.assert_allclose(series.mean(np.array([0.0, 0.4, 0.5]), np.array([2.0, 0.6, 2.0])), [50.0, 25.0, 75.0])


def test_energy_is_the_counters_where_there_is_one_to_the_end() -> None:
    windows = np.array([99.0, 100.0, 104.95]), np.array([100.0, 104.0, 105.0])
    for samples, watts, source in ((_samples(counter=True), 480, "counter"), (_samples(), 500, "integrated")):
        energy = Energy(samples)
        assert energy.source == source
        assert energy.total() == pytest.approx(watts * 6)
        np.testing.assert_allclose(energy.between(*windows), [watts, 4 * watts, 0.05 * watts])


def test_a_counter_that_is_lost_or_reset_is_not_trusted() -> None:
    samples = _samples(counter=True)
    lost = [*samples[:-1], replace(samples[-1], energy_counter_joules=None)]
    reset = [*samples[:-1], replace(samples[-1], energy_counter_joules=3.0)]
    assert Energy(lost).source == Energy(reset).source == "integrated"
    assert Energy(lost).total() == pytest.approx(500 * 6)


def test_unknown_energy_is_none() -> None:
    energy = Energy(_samples(power=None))
    assert (energy.total(), energy.source) == (None, None)
    assert np.isnan(energy.between(np.array([99.0]), np.array([100.0]))).all()


def test_stages() -> None:
    samples = [Sample(0, "startup", 0.0), Sample(1, "inference", 80.0), Sample(2, "inference", 90.0), Sample(3, "x")]
    assert utilization_by_stage(samples) == {"startup": 0.0, "inference": 85.0}


def test_shard_files_join_samples_to_batches(tmp_path: Path) -> None:
    batches = [_batch(0, 100.0, 102.0), _batch(1, 101.0, 104.0, wait=80.0, tokens=3000)]
    summary = write_shard_metrics(tmp_path, batches, _samples(), KNOWN).to_dict()
    table = pq.read_table(tmp_path / "batches.parquet")
    assert table.schema.equals(BATCHES_SCHEMA)
    assert table["shard"].to_pylist() == [7, 7]
    np.testing.assert_allclose(table["energy_joules"].to_numpy(), [1000.0, 1000.0])
    np.testing.assert_allclose(table["device_utilization"].to_numpy(), [90.0, 90.0])
    np.testing.assert_allclose(table["tokens_per_second"].to_numpy(), [500.0, 1500.0])
    assert table["queue_state"].to_pylist() == ["full", "starved"]
    samples = pq.read_table(tmp_path / "gpu_metrics.parquet")
    assert samples.schema.equals(GPU_METRICS_SCHEMA)
    assert samples.num_rows == 61
    assert set(samples["stage"].to_pylist()) == {"startup", "inference", "finish"}
    assert set(samples["device_uuid"].to_pylist()) == {"GPU-aaaa"}
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written == summary | {"digest": written["digest"]}
    assert set(SHARDS_SCHEMA.names) - set(summary) == {"attention"}
    assert summary["energy_joules"] == pytest.approx(3000)
    assert summary["startup_energy_joules"] == pytest.approx(500)
    assert summary["batch_energy_joules"] == pytest.approx(2000)
    assert summary["mean_power_watts"] == pytest.approx(500)
    assert summary["wall_seconds"] == pytest.approx(7.0)
    assert summary["compute_seconds"] == pytest.approx(4.0)
    assert summary["tokens_per_second"] == pytest.approx(1000.0)
    assert summary["teraflops_per_second"] == pytest.approx(3e3 / 4)
    assert summary["matrix_share"] == pytest.approx(0.75)
    assert summary["pct_starved"] == 50
    assert summary["p95_wait_time_ms"] == 80
    assert summary["bottleneck"] == "none"
    assert summary["shard"] == 7


def test_the_wall_time_is_divided_among_its_parts(tmp_path: Path) -> None:
    first = replace(_batch(0, 100.0, 101.0), wait_milliseconds=9000.0, queue_state="startup")
    batches = [first, _batch(1, 102.0, 103.0, wait=600.0), _batch(2, 103.5, 104.0, wait=0.0)]
    parts = ("startup_seconds", "starved_seconds", "compute_seconds", "write_seconds")

    def spent(**changes: float) -> list[float]:
        summary = write_shard_metrics(tmp_path, batches, _samples(), replace(KNOWN, **changes)).to_dict()
        assert summary["loader_wait_seconds"] == pytest.approx(0.6)
        assert summary["wall_seconds"] == pytest.approx(sum(summary[part] for part in parts))
        assert summary["pct_starved"] == 50
        return [summary[part] for part in parts]

    # 98 to 105 s, batches from 100 to 104 s with gaps of 1.5 s
    assert spent() == pytest.approx([2.0, 1.5, 2.5, 1.0])
    assert spent(writer_wait_seconds=1.2) == pytest.approx([2.0, 0.5, 2.5, 2.0])


def test_unknown_quantities_are_null_and_the_files_are_written(tmp_path: Path) -> None:
    summary = write_shard_metrics(tmp_path, [_batch(0, 100.0, 102.0)], [Sample(101.0, "")], ShardRun(shard=0)).to_dict()
    table = pq.read_table(tmp_path / "batches.parquet")
    assert table["energy_joules"].to_pylist() == table["device_utilization"].to_pylist() == [None]
    assert summary["energy_joules"] is summary["batch_energy_joules"] is summary["utilization_percent"] is None
    assert summary["bottleneck"] == "unknown"
    assert pq.read_table(tmp_path / "gpu_metrics.parquet")["power_watts"].to_pylist() == [None]


def test_an_empty_shard_has_metrics_too(tmp_path: Path) -> None:
    summary = write_shard_metrics(tmp_path, [], [], ShardRun(shard=3, process_start=5.0)).to_dict()
    assert summary["batches"] == summary["tokens"] == 0
    assert pq.read_table(tmp_path / "batches.parquet").num_rows == 0


def test_the_runs_own_figures_are_kept(tmp_path: Path) -> None:
    known = replace(KNOWN, peak_memory_bytes=123, token_budget=65536)
    summary = write_shard_metrics(tmp_path, [_batch(0, 100.0, 102.0)], _samples(), known).to_dict()
    assert summary["peak_memory_bytes"] == 123
    assert summary["token_budget"] == 65536
    assert summary["bottleneck"] == "none"


def test_no_operations_are_a_rate_of_nought(tmp_path: Path) -> None:
    summary = write_shard_metrics(tmp_path, [_batch(0, 100.0, 102.0)], _samples(), replace(KNOWN, flops=0)).to_dict()
    assert summary["teraflops_per_second"] == summary["matrix_share"] == 0.0


def test_the_peak_of_memory_on_a_cpu_counts_the_loaders_processes(tmp_path: Path) -> None:
    samples = [Sample(100.0, "", 50.0, 700), Sample(101.0, "", 50.0, 900), Sample(102.0, "", 50.0, 800)]
    for uuid, own, peak in ((None, 500, 900), (None, 1000, 1000), ("GPU-aaaa", 500, 500)):
        known = replace(KNOWN, device_uuid=uuid, peak_memory_bytes=own)
        assert write_shard_metrics(tmp_path, [_batch(0, 100.0, 102.0)], samples, known).peak_memory_bytes == peak


def test_a_device_lost_in_mid_run_leaves_later_batches_null(tmp_path: Path) -> None:
    lost = [s if s.time < 102 else Sample(s.time, "") for s in _samples()]
    summary = write_shard_metrics(tmp_path, [_batch(0, 100, 101.5), _batch(1, 104, 105)], lost, KNOWN).to_dict()
    energy = pq.read_table(tmp_path / "batches.parquet")["energy_joules"].to_pylist()
    assert energy == [pytest.approx(750), None]
    assert math.isclose(summary["batch_energy_joules"], 750)


@pytest.mark.parametrize("counter", [True, False])
def test_readings_out_of_order_end_no_shard(tmp_path: Path, counter: bool) -> None:
    """A summary of them once could not be written, after hours of work."""
    samples = [replace(s, time=s.time - 3600 * (s.time > 102)) for s in _samples(counter=counter)]
    summary = write_shard_metrics(tmp_path, [_batch(0, 100.0, 101.0), _batch(1, 101.0, 103.0)], samples, KNOWN)
    assert summary.energy_joules is None
    assert json.loads((tmp_path / "summary.json").read_text())["mean_power_watts"] is None
