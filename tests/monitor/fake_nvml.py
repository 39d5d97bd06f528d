"""Stands in for the module pynvml: two cards and a MIG slice, with failures to order."""

from __future__ import annotations

import types
from collections import Counter
from typing import Any

CARDS = {"GPU-aaaa": 0, "GPU-bbbb": 1, "MIG-cccc": 2}


class FakeNvml(types.ModuleType):
    """``failing`` maps function names to NVML error texts; ``lost_after`` lets every call fail from then on."""

    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, failing: dict[str, str] | None = None, lost_after: int | None = None) -> None:
        super().__init__("pynvml")
        self.failing = failing or {}
        self.lost_after = lost_after
        self.calls: Counter[str] = Counter()
        self.energy = 5_000_000

    def _call(self, name: str, value: Any) -> Any:
        self.calls[name] += 1
        if name in self.failing:
            raise self.NVMLError(self.failing[name])
        if self.lost_after is not None and self.calls["nvmlDeviceGetUtilizationRates"] > self.lost_after:
            raise self.NVMLError("GPU is lost")
        return value

    def nvmlInit(self) -> None:  # noqa: N802
        self._call("nvmlInit", None)

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.calls["nvmlShutdown"] += 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        if uuid not in CARDS:
            raise self.NVMLError("Not Found")
        return int(self._call("nvmlDeviceGetHandleByUUID", CARDS[uuid]))

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        return self._call("nvmlDeviceGetUtilizationRates", types.SimpleNamespace(gpu=90 + handle))

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return self._call("nvmlDeviceGetMemoryInfo", types.SimpleNamespace(used=1 << 30))

    def nvmlDeviceGetPowerUsage(self, handle: int) -> Any:  # noqa: N802
        return self._call("nvmlDeviceGetPowerUsage", 650_500)

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> Any:  # noqa: N802
        return self._call("nvmlDeviceGetClockInfo", 1755)

    def nvmlDeviceGetTemperature(self, handle: int, kind: int) -> Any:  # noqa: N802
        return self._call("nvmlDeviceGetTemperature", 61)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> Any:  # noqa: N802
        return self._call("nvmlDeviceGetCurrentClocksThrottleReasons", 0x4 | 0x20)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> Any:  # noqa: N802
        self.energy += 1000
        return self._call("nvmlDeviceGetTotalEnergyConsumption", self.energy)
