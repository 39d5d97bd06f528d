"""Measure the tiles of attention and of the linear layers on this GPU and rewrite the package's table (``make tune``).

python -m benchmarks.measurements.tune [--kernels attention,linear]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
from collections.abc import Mapping
from statistics import median
from typing import TypeVar

import torch
from benchmarks.measurements.bench_kernels import milliseconds

from virnucpro.kernels import hopper_attention, tiles
from virnucpro.kernels.attention import varlen_attention
from virnucpro.kernels.device import triton
from virnucpro.kernels.layer_norm import add_layer_norm, row_scale
from virnucpro.kernels.linear_gelu import linear_gelu
from virnucpro.kernels.rotary import Rotation, rotary_
from virnucpro.kernels.scaled_linear import scaled_linear_gelu, scaled_linear_rotary
from virnucpro.kernels.tiles import AttentionTiles, HopperAttentionTiles, LinearTiles
from virnucpro.model.parameters import LOW_QUERIES_HEAD_DIM

HEAD_DIMS = (16, 32, 64, 128)
LONGEST = (128, 256, 512, 1024)  # the last row holds for all longer ones
CHOICES = [
    AttentionTiles(*choice)
    for choice in itertools.product((64, 128), (32, 64, 128), (4, 8), (2, 3, 4))
    if choice[0] // 16 >= choice[2]  # a warp has at least 16 rows of queries
]
HOPPER_LONGEST = (128, 256, 448, 640, 1024)
HOPPER_CHOICES = [HopperAttentionTiles(*choice) for choice in itertools.product((2, 3), (64, 128))]
LINEAR_CHOICES = [
    LinearTiles(*choice)
    for choice in (
        (64, 128, 32, 4, 4), (128, 64, 32, 4, 4), (128, 128, 32, 4, 3), (128, 128, 32, 4, 4), (128, 128, 32, 8, 4),
        (128, 128, 64, 4, 3), (128, 128, 64, 8, 3), (128, 256, 32, 8, 4), (128, 256, 64, 8, 3), (128, 256, 64, 8, 4),
        (256, 128, 64, 8, 3),
    )
]  # fmt: skip
#: Width -> heads, of the official models.
WIDTHS = {320: 20, 480: 20, 640: 20, 1280: 20, 2560: 40, 5120: 40}
HOPPER = 9
HEADS, TOKENS = 20, 65536
PROCESSES = 8

Tiles = TypeVar("Tiles", AttentionTiles, HopperAttentionTiles, LinearTiles)


def attend(head_dim: int, length: int, choice: AttentionTiles, repeats: int, tokens: int = TOKENS) -> float:
    """Median milliseconds over sequences of one length, infinite where the tiles do not fit the GPU."""
    bounds = torch.arange(0, tokens + 1, length, dtype=torch.int32, device="cuda")
    qkv = torch.randn(tokens, 3 * HEADS * head_dim, dtype=torch.float16, device="cuda")
    low = None
    # Only the form of the layers for Hopper has low parts.
    if head_dim <= LOW_QUERIES_HEAD_DIM and torch.cuda.get_device_capability()[0] == HOPPER:
        low = 1e-4 * torch.randn(tokens, 2 * HEADS * head_dim, dtype=torch.float16, device="cuda")
    try:
        return median(
            milliseconds(
                lambda: varlen_attention(qkv, bounds, length, HEADS, head_dim**-0.5, low, tiles=choice), repeats
            )
        )
    except triton.runtime.errors.OutOfResources:
        return float("inf")


def attend_hopper(head_dim: int, length: int, choice: HopperAttentionTiles, repeats: int) -> float:
    """Likewise of the kernel for Hopper."""
    bounds = torch.arange(0, TOKENS + 1, length, dtype=torch.int32, device="cuda")
    qkv = torch.randn(TOKENS, 3 * HEADS * head_dim, dtype=torch.float16, device="cuda")
    out = torch.empty(TOKENS, HEADS * head_dim, dtype=torch.float16, device="cuda")
    try:
        return median(
            milliseconds(
                lambda: hopper_attention.launch(qkv, bounds, length, HEADS, head_dim**-0.5, out, choice), repeats
            )
        )
    except triton.runtime.errors.OutOfResources:
        return float("inf")


def multiply(width: int, choice: LinearTiles | None, repeats: int, tokens: int = TOKENS) -> float:
    """Median milliseconds of a layer's two products with something before and after them inside; without ``choice`` as
    PyTorch's products with passes around them. Infinite where the tiles do not fit the GPU or the width."""
    if choice is not None and width % choice.depth:
        return float("inf")
    heads = WIDTHS[width]
    x = torch.randn(tokens, width, dtype=torch.float16, device="cuda")
    weight = torch.randn(4 * width, width, dtype=torch.float16, device="cuda") / width
    bias, gain = torch.randn(4 * width, device="cuda"), torch.rand(width, device="cuda")
    turns = torch.rand(1024, width // heads // 2, device="cuda")
    rotation = Rotation(torch.arange(tokens, dtype=torch.int32, device="cuda") % 500, turns.cos(), turns.sin())
    narrow = bias.half()
    qkv_weight, qkv_bias, qkv_narrow = (each[: 3 * width] for each in (weight, bias, narrow))

    def layers() -> None:
        if choice is None:
            linear_gelu(add_layer_norm(x, None, gain, gain, shift_D=gain), weight, narrow)
            hidden = add_layer_norm(x, None, gain, gain, shift_D=gain)
            rotary_(torch.nn.functional.linear(hidden, qkv_weight, qkv_narrow), rotation, heads)
        else:
            scaled_linear_gelu(x, row_scale(x, gain), weight, bias, bias, tiles=choice)
            scaled_linear_rotary(x, row_scale(x, gain), qkv_weight, qkv_bias, qkv_bias, rotation, tiles=choice)

    try:
        return median(milliseconds(layers, repeats))
    except triton.runtime.errors.OutOfResources:
        return float("inf")


def linear_rows() -> list[list[int]]:
    """The fastest tiles by width, up to the first width where PyTorch's products and passes are faster."""
    rows: list[list[int]] = []
    for width in WIDTHS:
        tokens = TOKENS * 1280 // max(width, 640)
        apart = multiply(width, None, 10, tokens)
        times = {choice: multiply(width, choice, 10, tokens) for choice in LINEAR_CHOICES}
        if min(times.values()) >= apart:
            print(f"width {width}: with passes {apart:.3f} ms; inside {min(times.values()):.3f} ms")
            break
        rows.append([width, *fastest(times, f"width {width}, with passes {apart:.3f} ms, inside")])
    return rows


def fastest(times: Mapping[Tiles, float], case: str) -> list[int]:
    """The tiles of the least time, which is told; those that do not fit the GPU have taken for ever.

    Raises:
        SystemExit: none fits.
    """
    best = min(times, key=times.__getitem__)
    if math.isinf(times[best]):
        raise SystemExit(f"tune: {case}: none of {len(times)} choices fits this GPU; the table stays as it is")
    print(f"{case}: {tuple(best)} {times[best]:.3f} ms")
    return list(best)


def hopper_rows() -> list[list[int]]:
    """The fastest tiles of the kernel for Hopper."""
    rows = []
    for head_dim, (shorter, length) in itertools.product(
        hopper_attention.LEAST_LENGTHS, itertools.pairwise((0, *HOPPER_LONGEST))
    ):
        # Three consumers have too few registers for 128 values and 128 keys a row.
        choices = [choice for choice in HOPPER_CHOICES if head_dim * choice.key_rows < 128**2 or choice.consumers == 2]
        sample = (shorter + length) // 2 + 5
        times = {choice: attend_hopper(head_dim, sample, choice, 10) for choice in choices}
        best = fastest(times, f"heads of {head_dim}, up to {length}, Hopper")
        rows.append([head_dim, length if length != HOPPER_LONGEST[-1] else 1_000_000, *best])
    return rows


def compile_kernel(case: tuple[int, AttentionTiles]) -> None:
    """Fill Triton's cache."""
    attend(case[0], 64, case[1], 1, tokens=64)


def compile_linear(case: tuple[int, LinearTiles]) -> None:
    """Likewise."""
    multiply(*case, 1, tokens=64)


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", default="attention,linear", help="comma-separated")
    kernels = parser.parse_args().kernels.split(",")
    if "attention" in kernels:
        tune_attention()
    if "linear" in kernels:
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            pool.map(compile_linear, itertools.product(WIDTHS, LINEAR_CHOICES), chunksize=1)
        write_table(architecture(), linear_rows(), "linear")
    return 0


def architecture() -> str:
    major, minor = torch.cuda.get_device_capability()
    return f"{major}.{minor}"


def tune_attention() -> None:
    """Of the kernel for every card, and on Hopper of its own."""
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        pool.map(compile_kernel, itertools.product(HEAD_DIMS, CHOICES), chunksize=1)
    rows = []
    for head_dim, length in itertools.product(HEAD_DIMS, LONGEST):
        sample = length * 3 // 4 + 5  # between this row's limit and the one before, on no tile's edge
        times = {choice: attend(head_dim, sample, choice, 10) for choice in CHOICES}
        best = fastest(times, f"heads of {head_dim}, up to {length}")
        rows.append([head_dim, length if length != LONGEST[-1] else 1_000_000, *best])
    hopper = hopper_rows() if torch.cuda.get_device_capability()[0] == HOPPER else None
    write_table(architecture(), rows)
    if hopper:
        write_table(architecture(), hopper, "hopper_attention")


def write_table(card: str, rows: list[list[int]], kernel: str = "attention") -> None:
    """Put an architecture's rows of a kernel into the package's table, a line each."""
    table = json.loads(tiles.TABLE.read_text())
    table.setdefault(kernel, {})[card] = rows
    sections = (
        f'  "{name}": {{\n' + ",\n".join(map(show_rows, parts.items())) + "\n  }" for name, parts in table.items()
    )
    tiles.TABLE.write_text("{\n" + ",\n".join(sections) + "\n}\n")


def show_rows(part: tuple[str, list[list[int]]]) -> str:
    """One architecture's rows as the table has them."""
    name, rows = part
    if not rows:
        return f'    "{name}": []'
    return f'    "{name}": [\n      ' + ",\n      ".join(map(json.dumps, rows)) + "\n    ]"


if __name__ == "__main__":
    raise SystemExit(main())
