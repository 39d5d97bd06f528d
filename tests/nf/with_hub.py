#!/usr/bin/env python3
"""Run a command beside a hub on loopback that offers one official model: tests/nf/with_hub.py nf-test test tests/nf"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

NAME = "esm2_t6_8M_UR50D"


def main() -> int:
    """Serve the model while the command runs, and end as it ends."""
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "bin")]
    from model.hub_server import serve
    from model.official_models import save_official

    with (
        tempfile.TemporaryDirectory() as folder,
        serve(f"facebook/{NAME}", save_official(NAME, Path(folder) / NAME)) as hub,
    ):
        environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0"}
        return subprocess.run(sys.argv[1:], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
