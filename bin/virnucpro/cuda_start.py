"""CUDA before PyTorch: its devices counted, and itself started beside the imports of a process, which take longer."""

from __future__ import annotations

import ctypes
import threading

_LIBRARY = "libcuda.so.1"
#: CUDA's numbers of a device's attributes.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


def start_cuda(device: str) -> None:
    """Begin to start CUDA on the first visible GPU, on a thread of its own, and return at once.

    PyTorch, once it is imported, works in the context that is made here, a device's primary one. What goes wrong is
    left for it to find and to tell.

    Args:
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``; for the last two nothing is done.
    """
    if device in ("auto", "cuda"):
        threading.Thread(target=_make_context, name="cuda-start", daemon=True).start()


def visible_gpus() -> int:
    """GPUs that CUDA has in this process, by its driver's own word and without PyTorch; 0 where there is no driver."""
    cuda = _initialised()
    return 0 if cuda is None else _counted(cuda)


def capabilities() -> set[tuple[int, int]]:
    """Compute capabilities of the GPUs that CUDA has in this process, asked as `visible_gpus` does."""
    cuda = _initialised()
    if cuda is None:
        return set()
    found = set()
    for index in range(_counted(cuda)):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
        found.add((major.value, minor.value))
    return found


def _make_context() -> None:
    cuda, context = _initialised(), ctypes.c_void_p()
    if cuda is not None:
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)


def _counted(cuda: ctypes.CDLL) -> int:
    count = ctypes.c_int(0)
    return count.value if cuda.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def _initialised() -> ctypes.CDLL | None:
    """CUDA's driver, ready to be called; None where there is none, or no device for it."""
    try:
        cuda = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    return cuda if cuda.cuInit(0) == 0 else None
