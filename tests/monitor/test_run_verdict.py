"""The verdict on a run: where the time went, the setting to change, and what a million more would cost."""

from __future__ import annotations

from typing import Any

import pytest

from virnucpro.monitor.run_verdict import matrix_limit, run_bottleneck, run_time_spent, run_verdict


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
        "starved_seconds": 4.0,
        "compute_seconds": 76.0,
        "write_seconds": 10.0,
        "batches": 400,
        "sequences": 80_000,
        "tokens": 24_000_000,
        "tokens_per_second": 300_000.0,
        "teraflops_per_second": 389.0,
        "matrix_teraflops_per_second": 778.0,
        "utilization_percent": 97.0,
        "pct_starved": 0.0,
        "energy_joules": 50_000.0,
        "startup_energy_joules": 2_000.0,
    }
    return {**row, **changes}


def split(startup: float, starved: float, compute: float, write: float) -> dict[str, float]:
    """What the seconds of a shard went into."""
    return {
        "startup_seconds": startup,
        "starved_seconds": starved,
        "compute_seconds": compute,
        "write_seconds": write,
    }


def test_unknown_figures_cost_no_time_and_do_not_fail() -> None:
    bare = {"shard": 0, "tokens": 0, "wall_seconds": None, "started": 1.0, "finished": 2.0, "compute_seconds": None}
    assert run_time_spent([bare]) == dict.fromkeys(("startup", "starved", "compute", "write"), 0) | {"idle": 0}


def test_the_parts_of_a_run_add_up_to_its_length_on_every_device() -> None:
    shards = [shard(0), shard(1, started=1130.0, finished=1230.0), shard(2, device_uuid="GPU-1")]
    spent = run_time_spent(shards)
    assert spent == pytest.approx({"startup": 30, "starved": 12, "compute": 228, "write": 30, "idle": 30 + 130})
    assert sum(spent.values()) == pytest.approx(2 * 230)


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


def test_a_run_without_matrix_products_is_given_no_rate_of_them() -> None:
    line = run_verdict([shard(teraflops_per_second=0.0)])[0]
    assert line.endswith("the embedding layer alone takes no matrix products.")
    assert "TFLOP/s" not in line


def test_throughput_names_the_card_and_its_limit() -> None:
    first = run_verdict([shard()])[0]
    assert "80,000 sequences (24,000,000 tokens) on NVIDIA H100 80GB HBM3" in first
    assert "300,000 tokens/s" in first
    assert "50 % of the 778" in first


def test_no_share_is_claimed_where_the_limit_is_not_known() -> None:
    assert "%" not in run_verdict([shard(matrix_teraflops_per_second=None)])[0]
    assert matrix_limit([shard(), shard(1, matrix_teraflops_per_second=None)]) is None


def test_several_kinds_of_cards_are_named_and_their_limits_averaged() -> None:
    other = shard(1, device_uuid="GPU-1", device_name="NVIDIA L4", matrix_teraflops_per_second=60.0)
    first = run_verdict([shard(), other])[0]
    assert "NVIDIA H100 80GB HBM3, NVIDIA L4" in first
    assert f"{100 * 389 / 419:.0f} % of the 419" in first


def test_a_sound_run_needs_no_change() -> None:
    line = run_verdict([shard(**split(2, 2, 92, 4))])[2]
    assert "Bottleneck: none" in line
    assert "nothing to change" in line
    assert run_bottleneck([shard(**split(2, 2, 92, 4))]).severity == "none"


LATER = {"started": 1900.0, "finished": 2000.0}
SLOW_OTHER_GPU = {"device_uuid": "GPU-1", "finished": 1500.0, "wall_seconds": 500.0, "tokens": 138_000_000}
SECOND = {"started": 1100.0, "finished": 1200.0}


@pytest.mark.parametrize(
    ("shards", "cause", "severity", "words", "setting"),
    [
        (
            [shard(**split(80, 0, 10, 10)), shard(1, **SECOND)],
            "startup",
            "critical",
            "start-up, 45 %",
            "raise --shard_residues",
        ),
        ([shard(**split(80, 0, 10, 10))], "startup", "critical", "start-up", "weighs less with more sequences"),
        ([shard(**split(10, 50, 30, 10))], "starved", "critical", "waiting for batches, 50 %", "`cpus` of EMBED_SHARD"),
        ([shard(**split(10, 0, 60, 30))], "write", "mild", "writing, 30 %", "--embedding_dtype float16"),
        ([shard(), shard(1, **LATER)], "idle", "critical", "idle between shards", "raise --shard_residues"),
        (
            [shard(), shard(1, **SLOW_OTHER_GPU, **split(10, 0, 480, 10))],
            "idle",
            "mild",
            "idle between shards, 40 %",
            "lower --shard_residues",
        ),
        (
            [shard(utilization_percent=40.0, **split(1, 0, 98, 1))],
            "batches",
            "critical",
            "busy only 40 %",
            "--token_budget",
        ),
        (
            [shard(utilization_percent=70.0, pct_starved=60.0, **split(1, 9, 89, 1))],
            "loader",
            "mild",
            "busy only 70 %",
            "`cpus` of EMBED_SHARD",
        ),
    ],
)
def test_the_bottleneck_comes_with_one_setting(
    shards: list[dict[str, Any]], cause: str, severity: str, words: str, setting: str
) -> None:
    line = run_verdict(shards)[2]
    assert words in line
    assert setting in line
    found = run_bottleneck(shards)
    assert (found.cause, found.severity) == (cause, severity)
    assert line == f"Bottleneck: {found.verdict}."


def test_a_million_more_costs_all_but_startup() -> None:
    # 90 s and 48 kJ for 80,000 sequences: 1,125 s and 600 kJ for a million
    assert run_verdict([shard()])[3] == "A million more sequences like these: about 0.312 GPU-hours and 0.167 kWh."


def test_without_a_gpu_no_energy_is_claimed() -> None:
    line = run_verdict([shard(device_uuid=None, energy_joules=None)])[3]
    assert "CPU-hours" in line
    assert "kWh" not in line


def test_a_run_that_computed_nothing_says_so() -> None:
    assert len(run_verdict([])) == 1
    assert "Nothing was computed" in run_verdict([shard(tokens=0, sequences=0)])[0]


def checked(outcome: str = "met", residue: float | None = 3.1e-3, cosine: float | None = 0.99999789) -> dict[str, Any]:
    return {"self_check": outcome, "greatest_residue_l2": residue, "least_pooled_cosine": cosine}


@pytest.mark.parametrize(
    ("shards", "line"),
    [
        ([checked()], "greatest residue L2 3.1e-03, least pooled cosine 0.9999978; within the published bounds."),
        (
            [checked(), checked("plain", 1e-3, 0.9999999), checked("off", None, None)],
            "greatest residue L2 3.1e-03, least pooled cosine 0.9999978; within the published bounds in 1 of 3, by "
            "PyTorch's operations alone, as kernels were beyond the bounds, in 1 of 3, not checked in 1 of 3.",
        ),
        (
            [checked("missed", 0.25, 0.9889)],
            "greatest residue L2 2.5e-01, least pooled cosine 0.9889000; "
            "beyond the published bounds by what rounding explains in 1 of 1.",
        ),
    ],
)
def test_the_self_check_is_told_of_the_worst_shard(shards: list[dict[str, Any]], line: str) -> None:
    last = run_verdict([shard(number, **found) for number, found in enumerate(shards)])[-1]
    assert last == f"Self-check against fp32: {line}"


@pytest.mark.parametrize("found", [{}, checked("off", None, None)], ids=["results of before", "off"])
def test_nothing_is_told_of_a_check_that_was_not_made(found: dict[str, Any]) -> None:
    assert "Self-check" not in "".join(run_verdict([shard(**found)]))
