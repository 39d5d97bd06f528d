"""One reading of a device: a GPU through NVML, or without one this process and its children through psutil.

No reading ever raises: what cannot be read is None, and the first failure is logged once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from virnucpro.machine import usable_cores
from virnucpro.monitor.clock import now

log = logging.getLogger(__name__)

#: Consecutive failures of one quantity after which it is not asked for any more.
_GIVE_UP_AFTER: Final = 5
#: Seconds between looks for new child processes; listing all processes is the dear part.
_CHILDREN_SECONDS: Final = 2.0

#: Seconds between readings of what moves slowly: each query of the driver takes the GPU a moment.
_SLOW_SECONDS: Final = 1.0

#: NVML's bits for what holds the clocks down (nvml.h, nvmlClocksEventReasons).
_CLOCK_LIMITS: Final = {
    0x1: "idle",
    0x2: "application_clocks",
    0x4: "power_cap",
    0x8: "hardware_slowdown",
    0x10: "sync_boost",
    0x20: "thermal",
    0x40: "hardware_thermal",
    0x80: "power_brake",
    0x100: "display_clocks",
}

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading. ``time`` is in unix seconds; every other quantity is None where unknown.

    Attributes:
        stage: what the run was doing; "" until its batches tell.
        utilization: percent of the time in which a kernel ran; on a CPU the process tree's percentage of its cores.
        memory_used_bytes: memory in use on the whole device; on a CPU the process tree's resident memory.
        throttle_reasons: what holds the clocks down, joined by "+"; "" for nothing.
        energy_counter_joules: the card's own counter since its driver was loaded.
    """

    time: float
    stage: str = ""
    utilization: float | None = None
    memory_used_bytes: int | None = None
    power_watts: float | None = None
    sm_clock_megahertz: int | None = None
    temperature_celsius: int | None = None
    throttle_reasons: str | None = None
    energy_counter_joules: float | None = None


class _Guard:
    """Turns failures into None: warns once for all quantities, and gives up on a quantity that keeps failing."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._warned = False
        self._failures: dict[str, int] = {}

    def warn(self, error: BaseException) -> None:
        if not self._warned:
            log.warning("%s: metrics are incomplete (%s: %s); the run goes on", self._what, type(error).__name__, error)
        self._warned = True

    def read(self, quantity: str, reading: Callable[[], Value]) -> Value | None:
        if self._failures.get(quantity, 0) >= _GIVE_UP_AFTER:
            return None
        try:
            value = reading()
        # Metrics must not end a run that computes well: whatever a driver or its binding raises is survived.
        except Exception as error:
            self._failures[quantity] = self._failures.get(quantity, 0) + 1
            self.warn(error)
            return None
        self._failures[quantity] = 0
        return value


class NvmlProbe:
    """Reads one GPU, or one MIG slice, found by its UUID: NVML counts cards without CUDA_VISIBLE_DEVICES.

    A card that is cut into MIG slices is left unread: its figures are those of all its slices together.

    Args:
        uuid: as NVML or as torch prints it ("GPU-..." , "MIG-..." or the bare UUID).
    """

    def __init__(self, uuid: str) -> None:
        self._guard = _Guard(f"GPU {uuid}")
        self._nvml: Any = None
        self._handle: Any = None
        self._slow: tuple[int | None, int | None, int | None, str | None] = (None, None, None, None)
        self._slow_due = 0.0
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            handle = _find_device(pynvml, uuid)
            if _is_sliced(pynvml, handle):
                raise RuntimeError("it is cut into MIG slices, whose use NVML does not tell apart")
            self._handle = handle
        except Exception as error:
            self._guard.warn(error)

    def read(self) -> Sample:
        """All quantities; memory, clock, temperature and clock limits are at most a second old."""
        moment = now()
        if self._handle is None:
            return Sample(moment)
        nvml, handle, read = self._nvml, self._handle, self._guard.read
        clock = time.monotonic()
        if clock >= self._slow_due:
            self._slow, self._slow_due = self._read_slow(), clock + _SLOW_SECONDS
        memory, megahertz, celsius, limits = self._slow
        return Sample(
            moment,
            "",
            read("utilization", lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
            memory,
            read("power", lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3),
            megahertz,
            celsius,
            limits,
            read("energy", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3),
        )

    def _read_slow(self) -> tuple[int | None, int | None, int | None, str | None]:
        nvml, handle, read = self._nvml, self._handle, self._guard.read
        return (
            read("memory", lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used)),
            read("clock", lambda: int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))),
            read("temperature", lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
            read("throttle", lambda: clock_limits(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))),
        )

    def close(self) -> None:
        """Let go of NVML."""
        if self._nvml is not None:
            self._guard.read("shutdown", self._nvml.nvmlShutdown)
        self._nvml = self._handle = None


def _find_device(nvml: Any, uuid: str) -> Any:
    # CUDA does not say whether a UUID is a card's or a slice's.
    bare = uuid.removeprefix("GPU-").removeprefix("MIG-")
    names = [uuid] if uuid.startswith("MIG-") else [f"GPU-{bare}", f"MIG-{bare}"]
    for name in names[:-1]:
        try:
            return nvml.nvmlDeviceGetHandleByUUID(name)
        except nvml.NVMLError:
            log.debug("NVML knows no %s", name)
    return nvml.nvmlDeviceGetHandleByUUID(names[-1])


def _is_sliced(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE)
    except nvml.NVMLError:
        # Cards that cannot be sliced, and slices themselves, have no such mode.
        return False


def clock_limits(bits: int) -> str:
    """NVML's clock event reasons in words, joined by "+"; "" for none."""
    names = [name for bit, name in _CLOCK_LIMITS.items() if bits & bit]
    other = bits & ~sum(_CLOCK_LIMITS)
    return "+".join([*names, f"{other:#x}"] if other else names)


class ProcessProbe:
    """Reads this process and its children: CPU time as a share of the usable cores, and resident memory."""

    def __init__(self) -> None:
        self._guard = _Guard("CPU")
        self._processes: list[Any] = []
        self._listed = 0.0
        self._cores = usable_cores()
        self._before: tuple[float, dict[int, float]] | None = None

    def read(self) -> Sample:
        """CPU share since the last reading and memory now."""
        moment = now()
        usage = self._guard.read("processes", self._usage)
        if usage is None:
            return Sample(moment)
        seconds, memory = usage
        clock = time.monotonic()
        percent = None
        if self._before is not None and clock > self._before[0]:
            # A child that ended or began in between must not make the difference negative or huge.
            spent = sum(used - self._before[1].get(pid, used) for pid, used in seconds.items())
            percent = min(100.0, 100.0 * spent / ((clock - self._before[0]) * self._cores))
        self._before = (clock, seconds)
        return Sample(moment, utilization=percent, memory_used_bytes=memory)

    def close(self) -> None:
        """Forget the processes."""
        self._processes = []

    def _usage(self) -> tuple[dict[int, float], int]:
        import psutil

        if not self._processes or time.monotonic() - self._listed > _CHILDREN_SECONDS:
            this = psutil.Process()
            self._processes = [this, *this.children(recursive=True)]
            self._listed = time.monotonic()
        seconds: dict[int, float] = {}
        memory = 0
        for process in self._processes:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    seconds[process.pid] = times.user + times.system
                    memory += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return seconds, memory
