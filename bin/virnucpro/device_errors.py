"""What a device or the lack of memory raises, told from every other error by class and words: it can be tried again."""

from __future__ import annotations

import errno
import mmap
import re
from typing import Final

from virnucpro.machine import physical_memory_bytes

#: How the libraries begin their messages; a text that merely holds "cuda", such as a path, is none of them.
_OF_THE_DEVICE: Final = re.compile(
    r"\bCUDA (driver |unknown )?(error|initialization)\b|\bUnexpected error from cuda|\bTriton Error \[CUDA\]"
    r"|\b(CUBLAS|CUDNN|CUSOLVER|CUFFT)_STATUS_|\bcu(DNN|BLAS) error\b|\bNVML_|\bNVML error\b|\bMPS backend\b"
)
_DEVICE_MEMORY: Final = re.compile(r"\b(CUDA|MPS)\b.{0,40}\bout of memory\b|_ALLOC_FAILED\b")
#: The words of torch, its mapping of files, the linker, Python and Arrow where the host's memory ran out, with the
#: bytes asked for.
_HOST_MEMORY: Final = re.compile(
    r"\bDefaultCPUAllocator: (?:can't allocate|not enough) memory(?:: you tried to allocate (?P<torch>\d+))?"
    r"|\bunable to mmap (?P<mapped>\d+) bytes\b.*Cannot allocate memory"
    r"|\bfailed to map segment from shared object(?!: Operation)|\bcan't start new thread\b"
    r"|\b(?:malloc|realloc) of size (?P<arrow>\d+) failed"
)

#: Bytes that a machine with memory left has left.
_LITTLE: Final = 64 << 20


def is_out_of_device_memory(error: BaseException) -> bool:
    """Whether the device had no room for what was asked of it."""
    return type(error).__name__ == "OutOfMemoryError" or _DEVICE_MEMORY.search(str(error)) is not None


def is_out_of_memory(error: BaseException, most_bytes: int | None = None) -> bool:
    """Whether this machine had no room for what was asked of it.

    A damaged file can ask for any number of bytes: more than ``most_bytes``, or than the machine has, are no lack.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    found = _HOST_MEMORY.search(str(error))
    if found is None:
        return isinstance(error, MemoryError) and (most_bytes is None or _is_scarce())
    asked = next((int(size) for size in found.groups() if size), 0)
    return asked <= (physical_memory_bytes() if most_bytes is None else most_bytes)


def _is_scarce() -> bool:
    try:
        mmap.mmap(-1, _LITTLE).close()
    except OSError:
        return True
    return False


def device_fault(error: BaseException) -> str | None:
    """What to say of an error of the device or of memory: what failed and what to do. None of any other."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if is_out_of_device_memory(error):
        return f"the device's memory does not suffice: {text}; use a GPU with more memory or a free one"
    if is_out_of_memory(error):
        told = "memory does not suffice" if text == "MemoryError" else f"memory does not suffice: {text}"
        return f"{told}; give the task more memory"
    if type(error).__name__ == "AcceleratorError" or _OF_THE_DEVICE.search(str(error)):
        return f"the GPU failed: {text}; the task can be tried again, on another device if this recurs"
    return None
