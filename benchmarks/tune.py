"""Measure attention's tiles on this GPU and rewrite the package's table (``make tune``).

PYTHONPATH=bin python benchmarks/tune.py
"""

from __future__ import annotations

import itertools
import json
from statistics import median

import torch
from bench_kernels import milliseconds

from virnucpro.kernels import attention, tiles
from virnucpro.kernels.device import capability, launch_guard, triton

LONGEST = (128, 256, 512, 1024)  # the last row holds for all longer ones
CHOICES = [*itertools.product((64,), (32, 64, 128), (4,), (2, 3, 4)), *itertools.product((128,), (64,), (8,), (2, 3))]
HEADS, HEAD_DIM, TOKENS = 20, 64, 65536


def measure(qkv: torch.Tensor, length: int, choice: tuple[int, int, int, int]) -> float:
    """Median milliseconds of attention over sequences of one length, infinite where the tiles do not fit the GPU."""
    query_rows, key_rows, warps, stages = choice
    bounds = torch.arange(0, TOKENS + 1, length, dtype=torch.int32, device="cuda")
    out = torch.empty(TOKENS, HEADS * HEAD_DIM, dtype=qkv.dtype, device="cuda")
    blocks = triton.cdiv(length, query_rows)

    def run() -> None:
        attention._attention_kernel[(blocks * (bounds.numel() - 1), HEADS)](
            qkv, out, bounds, HEAD_DIM**-0.5 * attention.LOG2_E, blocks,
            HEADS, HEAD_DIM, HEAD_DIM, query_rows, key_rows, "tf32", num_warps=warps, num_stages=stages,
        )  # fmt: skip

    try:
        with launch_guard(qkv):
            return median(milliseconds(run, 10))
    except triton.runtime.errors.OutOfResources:
        return float("inf")


def main() -> int:
    qkv = torch.randn(TOKENS, 3 * HEADS * HEAD_DIM, device="cuda", dtype=torch.float16)
    rows = []
    for length in LONGEST:
        sample = length * 3 // 4 + 5  # between this row's limit and the one before, on no tile's edge
        times = {choice: measure(qkv, sample, choice) for choice in CHOICES}
        best = min(times, key=times.__getitem__)
        print(f"up to {length}: {best} {times[best]:.3f} ms")
        rows.append([length if length != LONGEST[-1] else 1_000_000, *best])
    table = tiles.read_table() | {str(capability(qkv)): rows}
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(table[name])}" for name in sorted(table, reverse=True))
    tiles.TABLE.write_text('{\n  "attention": {\n' + lines + "\n  }\n}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
