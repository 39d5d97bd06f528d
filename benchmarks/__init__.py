"""Measurements of the project, started from its folder as ``python -m benchmarks.<folder>.<name>``.

``measurements`` time the project's own parts, ``peers`` compare it with what others wrote, ``pages`` turn
``results`` into documentation.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bin"))
