"""The clock of a task's metrics: unix seconds that only grow, however the machine's clock is set meanwhile."""

from __future__ import annotations

import time
from typing import Final

_STARTED: Final = time.time() - time.monotonic()


def now() -> float:
    """Unix seconds by the machine's clock as it stood when this process began to measure."""
    return _STARTED + time.monotonic()
