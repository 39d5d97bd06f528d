"""Measure attention's tiles on this GPU and rewrite the package's table (``make tune``).

PYTHONPATH=bin python benchmarks/tune.py
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
from statistics import median

import torch
from bench_kernels import milliseconds

from virnucpro.kernels import tiles
from virnucpro.kernels.attention import varlen_attention
from virnucpro.kernels.device import triton
from virnucpro.kernels.tiles import AttentionTiles
from virnucpro.model.parameters import LOW_QUERIES_HEAD_DIM

HEAD_DIMS = (16, 32, 64, 128)
LONGEST = (128, 256, 512, 1024)  # the last row holds for all longer ones
CHOICES = [
    AttentionTiles(*choice)
    for choice in itertools.product((64, 128), (32, 64, 128), (4, 8), (2, 3, 4))
    if choice[0] // 16 >= choice[2]  # a warp has at least 16 rows of queries
]
HEADS, TOKENS = 20, 65536
PROCESSES = 8


def attend(head_dim: int, length: int, choice: AttentionTiles, repeats: int, tokens: int = TOKENS) -> float:
    """Median milliseconds over sequences of one length, infinite where the tiles do not fit the GPU."""
    bounds = torch.arange(0, tokens + 1, length, dtype=torch.int32, device="cuda")
    qkv = torch.randn(tokens, 3 * HEADS * head_dim, dtype=torch.float16, device="cuda")
    low = None
    if head_dim <= LOW_QUERIES_HEAD_DIM:
        low = 1e-4 * torch.randn(tokens, 2 * HEADS * head_dim, dtype=torch.float16, device="cuda")
    try:
        return median(
            milliseconds(
                lambda: varlen_attention(qkv, bounds, length, HEADS, head_dim**-0.5, low, tiles=choice), repeats
            )
        )
    except triton.runtime.errors.OutOfResources:
        return float("inf")


def compile_kernel(case: tuple[int, AttentionTiles]) -> None:
    """Fill Triton's cache."""
    attend(case[0], 64, case[1], 1, tokens=64)


def main() -> int:
    """Measure, print and write."""
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        pool.map(compile_kernel, itertools.product(HEAD_DIMS, CHOICES), chunksize=1)
    rows = []
    for head_dim, length in itertools.product(HEAD_DIMS, LONGEST):
        sample = length * 3 // 4 + 5  # between this row's limit and the one before, on no tile's edge
        times = {choice: attend(head_dim, sample, choice, 10) for choice in CHOICES}
        best = min(times, key=times.__getitem__)
        print(f"heads of {head_dim}, up to {length}: {tuple(best)} {times[best]:.3f} ms")
        rows.append([head_dim, length if length != LONGEST[-1] else 1_000_000, *best])
    write_table(str(torch.cuda.get_device_capability()[0]), rows)
    return 0


def write_table(architecture: str, rows: list[list[int]], kernel: str = "attention") -> None:
    """Put an architecture's rows of a kernel into the package's table, a line each."""
    table = json.loads(tiles.TABLE.read_text())
    table.setdefault(kernel, {})[architecture] = rows
    sections = (
        f'  "{name}": {{\n' + ",\n".join(map(show_rows, parts.items())) + "\n  }" for name, parts in table.items()
    )
    tiles.TABLE.write_text("{\n" + ",\n".join(sections) + "\n}\n")


def show_rows(part: tuple[str, list[list[int]]]) -> str:
    """One architecture's rows as the table has them."""
    name, rows = part
    return f'    "{name}": [\n      ' + ",\n      ".join(map(json.dumps, rows)) + "\n    ]"


if __name__ == "__main__":
    raise SystemExit(main())
