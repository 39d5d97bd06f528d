"""Takes from every Python process what only Linux has: its names in the standard library, and its files from our code.

Python imports this at its start where the folder is in PYTHONPATH. psutil and torch have other ways on other systems,
so only our own modules are refused /proc, /sys and /dev. Each process leaves its script's name in $WITHOUT_LINUX_LOG.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path

_NAMES = (
    "copy_file_range",
    "eventfd",
    "memfd_create",
    "pidfd_open",
    "posix_fadvise",
    "posix_fallocate",
    "pwritev2",
    "sched_getaffinity",
    "sched_setaffinity",
    "splice",
    "timerfd_create",
    "unshare",
)
_FOLDERS = ("/proc/", "/sys/", "/dev/nvidia")


class _LibraryWithoutMallopt(ctypes.CDLL):
    def __getattr__(self, name: str) -> object:
        if name == "mallopt":
            raise AttributeError(name)
        return super().__getattr__(name)


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(_FOLDERS):
        frame = sys._getframe()
        while frame is not None:
            name = frame.f_globals.get("__name__", "")
            if name.partition(".")[0] in ("psutil", "torch", "numpy", "pyarrow", "multiprocessing"):
                return
            if name.startswith("virnucpro"):
                raise FileNotFoundError(f"{arguments[0]}: this is not Linux")
            frame = frame.f_back


for _name in _NAMES:
    if hasattr(os, _name):
        delattr(os, _name)
for _name in [name for name in dir(mmap) if name.startswith("MADV_")]:
    delattr(mmap, _name)
ctypes.CDLL = _LibraryWithoutMallopt
sys.addaudithook(_refuse)
if "WITHOUT_LINUX_LOG" in os.environ:
    with Path(os.environ["WITHOUT_LINUX_LOG"]).open("a") as log:
        log.write(Path(sys.argv[0] if hasattr(sys, "argv") else "").name + "\n")
