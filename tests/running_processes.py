"""Processes that a test started, found by a mark in their environment; and waiting for what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil


def marked(name: str, mark: str) -> list[psutil.Process]:
    """All that run and carry ``mark`` in their environment under ``name``, as what they start does."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether the condition came to hold within these seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False
