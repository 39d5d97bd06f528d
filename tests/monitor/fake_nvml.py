"""Stands in for the module pynvml: two cards, a MIG slice and the card it is cut from, with failures to order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

CARDS = {"GPU-aaaa": 0, "GPU-bbbb": 1, "MIG-cccc": 2, "GPU-dddd": 3}
SLICE, SLICED = 2, 3
#: What NVML does not tell of a slice.
NOT_OF_A_SLICE = ("UtilizationRates", "PowerUsage", "TotalEnergyConsumption", "Temperature", "ClockInfo")


class FakeNvml(ModuleType):
    """``failing`` maps function names to NVML error texts; ``lost_after`` lets every call fail from then on."""

    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0
    NVML_DEVICE_MIG_ENABLE = 1

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

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        return partial(self._answer, name)

    def _answer(self, name: str, handle: Any = None, *_: Any) -> Any:
        if name == "nvmlDeviceGetHandleByUUID":
            if handle not in CARDS:
                raise self.NVMLError("Not Found")
            return self._call(name, CARDS[handle])
        if name == "nvmlDeviceGetTotalEnergyConsumption":
            self.energy += 1000
        if handle == SLICE and name.removeprefix("nvmlDeviceGet") in (*NOT_OF_A_SLICE, "MigMode"):
            self.calls[name] += 1
            raise self.NVMLError("Not Supported")
        readings = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetMigMode": [int(handle == SLICED), int(handle == SLICED)],
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=90 + (handle or 0)),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=1 << 30),
            "nvmlDeviceGetPowerUsage": 650_500,
            "nvmlDeviceGetClockInfo": 1755,
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0x4 | 0x20,
            "nvmlDeviceGetTotalEnergyConsumption": self.energy,
        }
        return self._call(name, readings[name])
