"""A shard's metrics while the device's driver fails in every way: the vectors come all the same, with one warning."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from pipeline.models import random_sequences, save_fair_esm, small_esm2

from virnucpro.config import EmbedConfig
from virnucpro.model.describe import describe_model
from virnucpro.output.contracts import ShardSummary
from virnucpro.pipeline import embed
from virnucpro.pipeline.async_inference import device_uuid

sys.path.insert(0, str(Path(__file__).parents[1] / "monitor"))
from fake_nvml import FakeNvml

BUDGET = 200


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, its description and a shard of twenty sequences."""
    folder = tmp_path_factory.mktemp("inputs")
    save_fair_esm(small_esm2(), folder / "small.pt")
    describe_model(folder / "small.pt").write(folder / "model.json")
    sequences = sorted(random_sequences(20, 5, longest=60), key=len, reverse=True)
    (folder / "shard-00003.fasta").write_text("".join(f">{i}\n{s}\n" for i, s in enumerate(sequences)))
    return folder


@pytest.fixture
def on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computes on the CPU what is watched as the card GPU-aaaa."""
    monkeypatch.setattr(embed, "device_uuid", lambda device: "GPU-aaaa")
    monkeypatch.setattr(embed, "SAMPLE_INTERVAL", 0.005)


def run(inputs: Path, outdir: Path) -> dict[str, Any]:
    return embed.embed_shard(
        EmbedConfig(
            shard=inputs / "shard-00003.fasta",
            model=inputs / "small.pt",
            model_json=inputs / "model.json",
            outdir=outdir,
            device="cpu",
            token_budget=BUDGET,
        )
    ).to_dict()


@pytest.mark.faults("NVML that fails", "a shard", "one warning, gaps in its figures, every vector")
@pytest.mark.parametrize(
    ("nvml", "known"),
    [
        (None, set()),
        (FakeNvml(failing={"nvmlInit": "NVML Shared Library Not Found"}), set()),
        (FakeNvml(failing={"nvmlInit": "Insufficient Permissions"}), set()),
        (FakeNvml(failing={"nvmlDeviceGetHandleByUUID": "Insufficient Permissions"}), set()),
        (FakeNvml(failing={"nvmlDeviceGetMigMode": "Not Supported"}, lost_after=2), {"utilization_percent"}),
        (FakeNvml(failing={"nvmlDeviceGetPowerUsage": "Not Supported"}), {"utilization_percent", "memory_used_bytes"}),
    ],
    ids=["no package", "no driver", "no permission", "no permission for the card", "lost in mid-run", "no power"],
)
@pytest.mark.usefixtures("on_a_card")
def test_a_driver_that_fails_costs_one_warning_and_no_vector(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    nvml: FakeNvml | None,
    known: set[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    run(inputs, tmp_path / "out")
    assert pq.read_metadata(tmp_path / "out" / "embeddings.parquet").num_rows == 20
    readings = pq.read_table(tmp_path / "out" / "gpu_metrics.parquet")
    quantities = ("utilization_percent", "memory_used_bytes", "power_watts")
    assert {name for name in quantities if readings[name].null_count < readings.num_rows} >= known
    if not known:
        assert all(readings[name].null_count == readings.num_rows for name in quantities)
    assert readings["power_watts"].null_count > 0
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "GPU-aaaa" in warnings[0] and "the run goes on" in warnings[0]


@pytest.mark.usefixtures("on_a_card")
def test_the_device_is_sampled_from_before_the_weights_are_read_until_all_is_written(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    load, batches, write = embed.load_model, embed._start_loader, embed.write_shard_metrics
    moments: list[float] = []

    def slow_load(*arguments: Any, **named: Any) -> Any:
        moments.append(time.time())
        time.sleep(0.1)
        return load(*arguments, **named)

    def slow_batches(*arguments: Any) -> Iterator[dict[str, Any]]:
        for batch in batches(*arguments):
            time.sleep(0.1)  # many readings, so that a busy machine does not miss the few milliseconds of inference
            yield batch

    def late_write(*arguments: Any) -> Any:
        moments.append(time.time())
        return write(*arguments)

    monkeypatch.setattr(embed, "load_model", slow_load)
    monkeypatch.setattr(embed, "_start_loader", slow_batches)
    monkeypatch.setattr(embed, "write_shard_metrics", late_write)
    summary = run(inputs, tmp_path / "out")
    readings = pq.read_table(tmp_path / "out" / "gpu_metrics.parquet").to_pydict()
    loading, writing = moments
    assert readings["time"][0] < loading < readings["time"][-1] <= writing
    assert readings["time"][-1] > writing - 1
    assert set(readings["stage"]) >= {"startup", "inference"}
    assert set(readings["device_uuid"]) == {"GPU-aaaa"}
    assert summary["energy_source"] == "counter"
    assert 0 < summary["startup_energy_joules"] < summary["energy_joules"]
    batches = pq.read_table(tmp_path / "out" / "batches.parquet").to_pydict()
    assert batches["queue_state"][0] == "startup"
    assert "startup" not in batches["queue_state"][1:]
    embed.tell_verdict(ShardSummary.read(tmp_path / "out" / "summary.json"))
    printed = capsys.readouterr().err
    assert "Where the time went: start-up" in printed
    assert "A million more sequences like these" in printed


def test_a_cards_uuid_is_asked_of_cuda_by_its_visible_number(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = ["aaaa", "GPU-bbbb"]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=cards[device.index]))
    assert device_uuid(torch.device("cuda", 0)) == "GPU-aaaa"
    assert device_uuid(torch.device("cuda", 1)) == "GPU-bbbb"
    assert device_uuid(torch.device("cpu")) is None
