"""Where Triton keeps compiled kernels."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

#: Bytes that the kernels of one model may take, and more.
NEEDED_BYTES: Final = 4 << 20


def kernel_folder() -> Path:
    """Where it is told to keep them, or does so by itself: in a folder that it calls home, or the user does."""
    if told := os.environ.get("TRITON_CACHE_DIR"):
        return Path(told)
    return Path(os.environ.get("TRITON_HOME") or os.path.expanduser("~"), ".triton", "cache")


def why_not_kept(folder: Path) -> OSError | None:
    """What keeps kernels from being written to a folder, which is made where it is not there; None where nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(NEEDED_BYTES))
    except OSError as error:
        return error
    return None
