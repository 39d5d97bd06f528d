"""The verdict on a run: where the time went, the setting to change, and what a million more would cost."""

from __future__ import annotations

from typing import Any

import pytest

from virnucpro.monitor.run_verdict import run_time_spent, run_verdict, time_spent


def shard(number: int = 0, **changes: Any) -> dict[str, Any]:
    """100 s of one GPU: 10 s to start, 80 s from first to last batch of which 76 s computing, 10 s to write."""
    row = {
        "shard": number,
        "device_name": "NVIDIA H100 80GB HBM3",
        "device_uuid": "GPU-0",
        "host": "node1",
        "started": 1000.0,
        "finished": 1100.0,
        "wall_seconds": 100.0,
        "startup_seconds": 10.0,
        "compute_seconds": 76.0,
        "batches": 400,
        "sequences": 80_000,
        "tokens": 24_000_000,
        "tokens_per_second": 300_000.0,
        "teraflops_per_second": 389.0,
        "utilization_percent": 97.0,
        "pct_starved": 0.0,
        "batch_energy_joules": 48_000.0,
    }
    return {**row, **changes}


def test_the_parts_of_a_shard_add_up_to_its_wall_time() -> None:
    assert time_spent(shard()) == pytest.approx({"startup": 10, "starved": 4, "compute": 76, "write": 10})


def test_unknown_figures_cost_no_time_and_do_not_fail() -> None:
    bare = {"shard": 0, "tokens": 0, "wall_seconds": None}
    assert time_spent(bare) == {"startup": 0, "starved": 0, "compute": 0, "write": 0}
    known_wall = shard(startup_seconds=None, tokens_per_second=None, compute_seconds=None)
    assert time_spent(known_wall) == pytest.approx({"startup": 0, "starved": 0, "compute": 0, "write": 100})


def test_parts_never_exceed_the_wall_time() -> None:
    spent = time_spent(shard(startup_seconds=50.0, compute_seconds=500.0))
    assert sum(spent.values()) == pytest.approx(100)
    assert min(spent.values()) >= 0


def test_idle_is_what_each_device_lacks_of_the_whole_run() -> None:
    shards = [
        shard(0),
        shard(1, started=1120.0, finished=1220.0),
        shard(2, device_uuid="GPU-1"),
        shard(3, device_uuid="GPU-1", started=1050.0, finished=1150.0),
    ]
    assert run_time_spent(shards)["idle"] == pytest.approx(20 + 70)


def test_the_same_uuid_on_two_hosts_is_two_devices() -> None:
    shards = [shard(0), shard(1, host="node2", started=1100.0, finished=1200.0)]
    assert run_time_spent(shards)["idle"] == pytest.approx(200)


def test_throughput_names_the_card_and_its_limit() -> None:
    first = run_verdict([shard()])[0]
    assert "80,000 sequences (24,000,000 tokens) on NVIDIA H100 80GB HBM3" in first
    assert "300,000 tokens/s" in first
    assert "50 % of the 778" in first


def test_no_share_is_claimed_of_an_unknown_card_or_of_several_kinds() -> None:
    assert "%" not in run_verdict([shard(device_name="Some Card")])[0]
    mixed = run_verdict([shard(), shard(1, device_uuid="GPU-1", device_name="NVIDIA H200")])[0]
    assert "%" not in mixed
    assert "NVIDIA H100 80GB HBM3, NVIDIA H200" in mixed


def test_a_sound_run_needs_no_change() -> None:
    lines = run_verdict([shard(startup_seconds=2.0, finished=1086.0, wall_seconds=86.0, compute_seconds=80.0)])
    assert "Bottleneck: none" in lines[2]
    assert "nothing to change" in lines[2]


LATER = {"started": 1900.0, "finished": 2000.0}
SLOW_OTHER_GPU = {"device_uuid": "GPU-1", "finished": 1500.0, "wall_seconds": 500.0, "tokens": 138_000_000}
BATCHES_ONLY = {"startup_seconds": 1.0, "compute_seconds": 80.0, "wall_seconds": 82.0, "finished": 1082.0}


@pytest.mark.parametrize(
    ("shards", "cause", "setting"),
    [
        (
            [shard(startup_seconds=80.0), shard(1, started=1100.0, finished=1200.0)],
            "start-up",
            "raise --shard_residues",
        ),
        ([shard(startup_seconds=80.0)], "start-up", "weighs less with more sequences"),
        ([shard(compute_seconds=30.0)], "waiting for batches", "more CPUs"),
        ([shard(tokens_per_second=6e5, compute_seconds=40.0)], "writing", "--embedding_dtype float16"),
        ([shard(), shard(1, **LATER)], "idle between shards", "raise --shard_residues"),
        ([shard(), shard(1, compute_seconds=455.0, **SLOW_OTHER_GPU)], "idle between shards", "lower --shard_residues"),
        ([shard(utilization_percent=40.0, **BATCHES_ONLY)], "busy only 40 %", "--token_budget"),
    ],
)
def test_the_bottleneck_comes_with_one_setting(shards: list[dict[str, Any]], cause: str, setting: str) -> None:
    line = run_verdict(shards)[2]
    assert cause in line
    assert setting in line


def test_a_million_more_is_foretold_from_the_batches() -> None:
    # 80 s and 48 kJ for 80,000 sequences: 1,000 s and 600 kJ for a million
    assert run_verdict([shard()])[3] == "A million more sequences like these: about 0.278 GPU-hours and 0.167 kWh."


def test_without_a_gpu_no_energy_is_claimed() -> None:
    line = run_verdict([shard(device_uuid=None, batch_energy_joules=None)])[3]
    assert "CPU-hours" in line
    assert "kWh" not in line


def test_a_run_that_computed_nothing_says_so() -> None:
    assert len(run_verdict([])) == 1
    assert "Nothing was computed" in run_verdict([shard(tokens=0, sequences=0)])[0]
