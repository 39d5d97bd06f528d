"""The NVIDIA driver as NVML tells of it, without CUDA: asking CUDA itself fails where the driver is too old."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

#: NVML gives CUDA's version as 1000 times the major and 10 times the minor version.
_MAJOR, _MINOR = 1000, 10
_UNKNOWN: Final = "of unknown version"


@dataclass(frozen=True)
class Card:
    """One GPU of this machine, by the name and the compute capability that its driver gives."""

    uuid: str
    name: str
    capability: tuple[int, int]


@dataclass(frozen=True)
class Driver:
    """``cuda`` is the newest version of CUDA that the driver runs; ``gpus`` counts cards whether visible or not.

    ``cards`` are those of which NVML tells more, which an older one may not.
    """

    version: str
    cuda: tuple[int, int]
    gpus: int
    cards: tuple[Card, ...] = ()


def find_driver() -> Driver | None:
    """The driver of this machine, or None where none answers."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # whatever a missing or broken driver, or its binding, raises: there is none to speak of
        return None
    try:
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        gpus = int(pynvml.nvmlDeviceGetCount())
        return Driver(_version(pynvml), (cuda // _MAJOR, cuda % _MAJOR // _MINOR), gpus, _cards(pynvml, gpus))
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _version(nvml: Any) -> str:
    try:
        return _text(nvml.nvmlSystemGetDriverVersion())
    except Exception:
        return _UNKNOWN


def _cards(nvml: Any, count: int) -> tuple[Card, ...]:
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        return tuple(
            Card(
                _text(nvml.nvmlDeviceGetUUID(handle)),
                _text(nvml.nvmlDeviceGetName(handle)),
                tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
            )
            for handle in handles
        )
    except Exception:
        return ()


def _text(found: bytes | str) -> str:
    return found.decode() if isinstance(found, bytes) else found
