"""Samples a device at a fixed rate on a thread of its own, beside a run that it can neither fail nor slow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final, Self

from virnucpro.monitor.probes import NvmlProbe, ProcessProbe, Sample

__all__ = ["DeviceSampler", "Sample", "device_statistics"]

log = logging.getLogger(__name__)

DEFAULT_INTERVAL_SECONDS: Final = 0.1
#: Seconds that ``stop`` waits for a driver call that hangs.
_STOP_SECONDS: Final = 5.0


class DeviceSampler:
    """Readings of one device, ten a second by default.

    Args:
        device_uuid: the GPU's UUID (``torch.cuda.get_device_properties(i).uuid`` as a string, with or without its
            "GPU-" or "MIG-" prefix), or None for the CPU.
        interval_seconds: time between readings.
    """

    def __init__(self, device_uuid: str | None, interval_seconds: float = DEFAULT_INTERVAL_SECONDS) -> None:
        self.device_uuid = device_uuid
        self._interval = interval_seconds
        self._samples: list[Sample] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the first reading is taken by the sampling thread at once."""
        if self._thread is not None:
            return
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="device-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take a last reading and end; harmless when not started."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()
        thread.join(_STOP_SECONDS)
        if thread.is_alive():
            log.warning("the driver does not answer; its last metrics are missing")

    def samples(self) -> list[Sample]:
        """The readings so far, in order of time."""
        return list(self._samples)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        probe = ProcessProbe() if self.device_uuid is None else NvmlProbe(self.device_uuid)
        due = time.monotonic()
        stopping = False
        while not stopping:
            self._samples.append(probe.read())
            due = max(due + self._interval, time.monotonic())
            stopping = self._stopping.wait(due - time.monotonic())
        self._samples.append(probe.read())
        probe.close()


def device_statistics(samples: Sequence[Sample]) -> dict[str, float | int | None]:
    """Mean, least and greatest utilisation in percent, and mean and peak memory in bytes."""
    busy = [s.utilization for s in samples if s.utilization is not None]
    memory = [s.memory_used_bytes for s in samples if s.memory_used_bytes is not None]
    return {
        "gpu_util_avg": sum(busy) / len(busy) if busy else None,
        "gpu_util_min": min(busy, default=None),
        "gpu_util_max": max(busy, default=None),
        "mem_used_avg": sum(memory) / len(memory) if memory else None,
        "mem_used_peak": max(memory, default=None),
        "sample_count": len(samples),
    }
