"""What the machine tells of this process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BIN = Path(__file__).parents[1] / "bin"
GROWN = 200 << 20
#: Holds much for a moment, then starts a small process and tells the peaks of both.
PROGRAM = f"""
import subprocess, sys
from virnucpro.machine import peak_resident_bytes
before = peak_resident_bytes()
held = b"x" * {GROWN}
del held
small = [sys.executable, "-c", "from virnucpro.machine import peak_resident_bytes; print(peak_resident_bytes())"]
print(before, peak_resident_bytes(), subprocess.run(small, capture_output=True, text=True, check=True).stdout)
"""


def test_the_peak_of_memory_is_this_processs_own_and_outlasts_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={"PYTHONPATH": str(BIN)}, capture_output=True, text=True, check=True
    )
    before, after, child = map(int, done.stdout.split())
    assert GROWN <= after < before + 2 * GROWN
    assert 1 << 20 < child < GROWN
