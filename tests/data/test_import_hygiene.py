"""What a worker has to import: every module more costs each worker of each shard."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("triton", "pyarrow", "esm", "Bio", "transformers", "virnucpro.model", "virnucpro.kernels",
         "virnucpro.pipeline", "virnucpro.output", "virnucpro.monitor")  # fmt: skip
REPORT = f"""
import sys
import {{module}}
print(sorted(name for name in {HEAVY!r} if name in sys.modules), 'torch' in sys.modules)
if 'torch' in sys.modules:
    import torch
    assert not torch.cuda.is_initialized()
"""


@pytest.mark.parametrize(
    ("module", "torch"),
    [("virnucpro.data", True), ("virnucpro.data.dataloader_utils", True), ("virnucpro.fasta", False)],
)
def test_importing_brings_nothing_heavy(module: str, torch: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{REPORT.format(module=module)}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == f"[] {torch}"
