"""What the machine offers this process, asked in ways that Linux, macOS and Windows' subsystem all answer."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may use: its affinity where the system has one, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """The processor as its maker calls it; its architecture where the system does not say."""
    return _named_by_linux() or _named_by_macos() or platform.machine() or "CPU"


def physical_memory_bytes() -> int:
    """The memory that the machine has, whatever this process may use of it."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_resident_bytes() -> int:
    """The most memory that this process held at a time."""
    # What ``getrusage`` tells on Linux may be that of the process that started this one.
    held = _told_by_linux("/proc/self/status", "VmHWM").split()
    if held:
        return int(held[0]) << 10
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest << 10


def _named_by_linux() -> str:
    return _told_by_linux("/proc/cpuinfo", "model name")


def _told_by_linux(path: str, name: str) -> str:
    """The first value of a name in one of the kernel's files; empty where there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _named_by_macos() -> str:
    if sys.platform != "darwin":
        return ""
    asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
