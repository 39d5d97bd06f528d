from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from fake_nvml import FakeNvml

from virnucpro.monitor.gpu import DeviceSampler
from virnucpro.monitor.probes import NvmlProbe, ProcessProbe, Sample, clock_limits

Install = Callable[[FakeNvml], FakeNvml]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    def put(fake: FakeNvml) -> FakeNvml:
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return put


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_all_quantities_are_read_in_their_units(install: Install) -> None:
    install(FakeNvml())
    sample = NvmlProbe("GPU-aaaa").read()
    assert sample == Sample(sample.time, "", 90.0, 1 << 30, 650.5, 1755, 61, "power_cap+thermal", 5001.0)
    assert abs(sample.time - time.time()) < 60


@pytest.mark.parametrize("device_uuid", ["GPU-aaaa", None])
def test_a_clock_that_is_set_back_leaves_the_readings_in_order(
    device_uuid: str | None, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(FakeNvml())
    probe = ProcessProbe() if device_uuid is None else NvmlProbe(device_uuid)
    before = probe.read().time
    monkeypatch.setattr(time, "time", lambda: before - 3600)
    assert before <= probe.read().time < before + 60


def test_what_moves_slowly_is_asked_for_once_a_second(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, clock = install(FakeNvml()), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    probe = NvmlProbe("GPU-aaaa")
    for _ in range(25):
        sample = probe.read()
        assert (sample.memory_used_bytes, sample.sm_clock_megahertz, sample.temperature_celsius) == (1 << 30, 1755, 61)
        clock[0] += 0.1
    assert fake.calls["nvmlDeviceGetPowerUsage"] == fake.calls["nvmlDeviceGetTotalEnergyConsumption"] == 25
    assert fake.calls["nvmlDeviceGetMemoryInfo"] == fake.calls["nvmlDeviceGetTemperature"] == 3


@pytest.mark.parametrize(("uuid", "busy"), [("GPU-aaaa", 90.0), ("aaaa", 90.0), ("bbbb", 91.0), ("GPU-bbbb", 91.0)])
@pytest.mark.parametrize("visible", ["7", "", "1,0", "GPU-aaaa"])
def test_the_card_is_found_by_uuid_whatever_is_visible(
    install: Install, monkeypatch: pytest.MonkeyPatch, uuid: str, busy: float, visible: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    install(FakeNvml())
    assert NvmlProbe(uuid).read().utilization == busy


def test_one_failing_quantity_is_null_with_one_warning_and_soon_left_alone(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    fake = install(FakeNvml(failing={"nvmlDeviceGetUtilizationRates": "Insufficient Permissions"}))
    probe = NvmlProbe("GPU-aaaa")
    samples = [probe.read() for _ in range(20)]
    assert all(s.utilization is None and s.power_watts == 650.5 for s in samples)
    assert len(_warnings(caplog)) == 1
    assert "Insufficient Permissions" in _warnings(caplog)[0]
    assert fake.calls["nvmlDeviceGetUtilizationRates"] == 5


@pytest.mark.parametrize("uuid", ["MIG-cccc", "GPU-cccc", "cccc"])
def test_a_mig_slice_is_found_and_what_it_does_not_tell_is_null_with_one_warning(
    install: Install, caplog: pytest.LogCaptureFixture, uuid: str
) -> None:
    install(FakeNvml())
    probe = NvmlProbe(uuid)
    for _ in range(3):
        sample = probe.read()
        assert sample.memory_used_bytes == 1 << 30
        assert sample.utilization is sample.power_watts is sample.energy_counter_joules is None
    assert len(_warnings(caplog)) == 1


def test_figures_of_all_slices_are_not_taken_for_those_of_one(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install(FakeNvml())
    sample = NvmlProbe("GPU-dddd").read()
    assert sample == Sample(sample.time, "")
    assert len(_warnings(caplog)) == 1
    assert "MIG slices" in _warnings(caplog)[0]


def test_a_card_lost_in_mid_run_leaves_nulls(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install(FakeNvml(lost_after=3))
    probe = NvmlProbe("GPU-aaaa")
    busy = [probe.read().utilization for _ in range(8)]
    assert busy == [90.0] * 3 + [None] * 5
    assert len(_warnings(caplog)) == 1


@pytest.mark.parametrize(
    ("fake", "uuid"),
    [
        (FakeNvml(failing={"nvmlInit": "Driver Not Loaded"}), "GPU-aaaa"),
        (FakeNvml(failing={"nvmlDeviceGetHandleByUUID": "Insufficient Permissions"}), "GPU-aaaa"),
        (FakeNvml(), "GPU-elsewhere"),
    ],
)
def test_a_card_that_cannot_be_opened_leaves_nulls_and_one_warning(
    install: Install, caplog: pytest.LogCaptureFixture, fake: FakeNvml, uuid: str
) -> None:
    install(fake)
    with DeviceSampler(uuid, 0.005) as sampler:
        time.sleep(0.03)
    assert len(sampler.samples()) >= 2
    assert all(s.utilization is None and s.power_watts is None for s in sampler.samples())
    assert len(_warnings(caplog)) == 1
    assert uuid in _warnings(caplog)[0]


def test_without_the_package_the_run_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with DeviceSampler("GPU-aaaa", 0.005) as sampler:
        time.sleep(0.02)
    assert len(sampler.samples()) >= 2
    assert len(_warnings(caplog)) == 1


def test_sampler_keeps_its_rate_and_lets_go(install: Install) -> None:
    fake = install(FakeNvml())
    sampler = DeviceSampler("GPU-aaaa", 0.01)
    sampler.start()
    time.sleep(0.1)
    time.sleep(0.1)
    sampler.stop()
    samples = sampler.samples()
    assert 4 <= len(samples) <= 23
    assert [s.time for s in samples] == sorted(s.time for s in samples)
    assert fake.calls["nvmlShutdown"] == 1
    sampler.stop()
    assert len(sampler.samples()) == len(samples)


def test_a_driver_that_hangs_does_not_hold_the_run(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(FakeNvml())
    monkeypatch.setattr("virnucpro.monitor.gpu._STOP_SECONDS", 0.05)
    monkeypatch.setattr(fake, "nvmlDeviceGetPowerUsage", lambda handle: time.sleep(1))
    sampler = DeviceSampler("GPU-aaaa", 0.005)
    sampler.start()
    before = time.monotonic()
    sampler.stop()
    assert time.monotonic() - before < 0.8


def test_without_a_gpu_the_process_tree_is_read() -> None:
    probe = ProcessProbe()
    assert probe.read().utilization is None
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass
    sample = probe.read()
    assert sample.utilization is not None
    assert 0 < sample.utilization <= 100
    assert sample.memory_used_bytes is not None
    assert sample.memory_used_bytes > 1 << 20
    assert sample.power_watts is None


def test_children_count_and_may_end() -> None:
    alone = ProcessProbe().read().memory_used_bytes
    child = subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    probe = ProcessProbe()
    together = probe.read().memory_used_bytes
    child.communicate(b"\n")
    after = probe.read()
    assert alone is not None
    assert together is not None
    assert together > alone + (1 << 20)
    assert after.memory_used_bytes is not None


@pytest.mark.parametrize(
    ("bits", "words"),
    [(0, ""), (1, "idle"), (0x4C, "power_cap+hardware_slowdown+hardware_thermal"), (0x1004, "power_cap+0x1000")],
)
def test_clock_limits_in_words(bits: int, words: str) -> None:
    assert clock_limits(bits) == words
