"""The NVIDIA driver as NVML tells of it, without CUDA: asking CUDA itself fails where the driver is too old."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: NVML gives CUDA's version as 1000 times the major and 10 times the minor version.
_MAJOR, _MINOR = 1000, 10
_UNKNOWN: Final = "of unknown version"


@dataclass(frozen=True)
class Driver:
    """``cuda`` is the newest version of CUDA that the driver runs; ``gpus`` counts cards whether visible or not."""

    version: str
    cuda: tuple[int, int]
    gpus: int


def find_driver() -> Driver | None:
    """The driver of this machine, or None where none answers."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # whatever a missing or broken driver, or its binding, raises: there is none to speak of
        return None
    try:
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        return Driver(_version(pynvml), (cuda // _MAJOR, cuda % _MAJOR // _MINOR), int(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _version(nvml: object) -> str:
    try:
        found = nvml.nvmlSystemGetDriverVersion()  # type: ignore[attr-defined]
    except Exception:
        return _UNKNOWN
    return found.decode() if isinstance(found, bytes) else str(found)
