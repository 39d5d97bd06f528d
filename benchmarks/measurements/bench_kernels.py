"""Time each kernel beside its plain-PyTorch twin on one GPU, at the shapes of one packed batch; write a CSV.

    python -m benchmarks.measurements.bench_kernels --model 650M --dtype bf16

A row gives least, median and greatest milliseconds, TFLOP/s for kernels that multiply and GB/s for those that move
bytes, and the twin's median. The matrix rate is measured cold (20 products) and after 2 s of products, when the card's
power limit holds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from statistics import median

import torch
from benchmarks.environment import RESULTS, conditions, write_csv

from virnucpro.kernels import (
    attention,
    fp8_linear,
    fused_fp8,
    fused_linear,
    layer_norm,
    linear_gelu,
    pooling,
    rotary,
    scaled_linear,
)
from virnucpro.kernels.high_low import HighLow

WIDTHS = {"8M": (320, 20), "35M": (480, 20), "150M": (640, 20), "650M": (1280, 20), "3B": (2560, 40)}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp8": torch.bfloat16}
Case = tuple[str, Callable[[], object], Callable[[], object], float, float]


def milliseconds(function: Callable[[], object], repeats: int) -> list[float]:
    """Device times of repeated calls, after two to warm up."""
    for _ in range(2):
        function()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        function()
        mark.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in pairwise(marks)]


def matrix_rate(seconds: float) -> float:
    """bf16 TFLOP/s of 8192 x 8192 x 8192 products, measured over 20 of them after `seconds` of the same."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(20):
            a @ b
        torch.cuda.synchronize()
    return 2 * 8192**3 / median(milliseconds(lambda: a @ b, 20)) / 1e9


def rotation_for(head_dim: int, lengths: list[int]) -> rotary.Rotation:
    """Positions, cosines and sines of a packed batch."""
    place = torch.cat([torch.arange(length) for length in lengths]).to("cuda", torch.int32)
    angle = torch.outer(torch.arange(max(lengths)), torch.rand(head_dim // 2)).cuda()
    return rotary.Rotation(place, angle.cos(), angle.sin())


def fp8_cases(x: torch.Tensor, heads: int, lengths: list[int]) -> Iterator[Case]:
    """The fused linear layers in e4m3, and the product and the passes that other GPUs take instead."""
    tokens, width = x.shape
    random = lambda *shape: torch.randn(*shape, device="cuda", dtype=x.dtype)  # noqa: E731
    quantised = lambda *shape: fp8_linear.quantise_rows(random(*shape) / width)  # noqa: E731
    rotation = rotation_for(width // heads, lengths)
    statistics = fused_linear.row_statistics(x, fused_linear.chunks_of(width))
    copy = fused_fp8.quantise_stream(x, statistics)
    qkv, up, (down, down_scale) = quantised(3 * width, width), quantised(4 * width, width), quantised(width, 4 * width)
    bias, narrow, out = random(4 * width), random(tokens, width), random(width, width) / width
    hidden = random(tokens, 4 * width).to(torch.float8_e4m3fn)
    size, product = tokens * width, 2 * tokens * width * width
    yield ("fp8_norm_linear_rotary",
           lambda: fused_fp8.fp8_norm_linear_rotary(copy, statistics, qkv, bias[: 3 * width], rotation),
           lambda: fused_fp8.fp8_norm_linear_rotary_ref(copy, statistics, qkv, bias[: 3 * width], rotation),
           3 * product, 0)  # fmt: skip
    yield ("fp8_norm_linear_gelu", lambda: fused_fp8.fp8_norm_linear_gelu(copy, statistics, up, bias, 1.0),
           lambda: fused_fp8.fp8_norm_linear_gelu_ref(copy, statistics, up, bias, 1.0), 4 * product, 0)  # fmt: skip
    for name, h, weight, scale, work in (
        ("out", narrow, out, None, product),
        ("down", hidden, down, down_scale, 4 * product),
    ):
        arguments = (x, copy, statistics, h, weight, scale, bias[:width])
        yield (f"fp8_linear_residual_{name}", partial(fused_fp8.fp8_linear_residual_, *arguments),
               partial(fused_fp8.fp8_linear_residual_ref_, *arguments), work, 0)  # fmt: skip
    yield ("fp8_linear_up", lambda: fp8_linear.fp8_linear(copy, up, bias),
           lambda: fp8_linear.fp8_linear_ref(copy, up, bias), 4 * product, 0)  # fmt: skip
    wide, gain = random(tokens, 4 * width), torch.ones(width, device="cuda")
    yield ("gelu_quantise", lambda: fp8_linear.gelu_quantise(wide), lambda: fp8_linear.gelu_quantise_ref(wide),
           0, 12 * size)  # fmt: skip
    yield ("add_layer_norm_quantise", lambda: fp8_linear.add_layer_norm_quantise(x, narrow, gain, gain),
           lambda: fp8_linear.add_layer_norm_quantise_ref(x, narrow, gain, gain), 0, 7 * size)  # fmt: skip


def linear_cases(x: torch.Tensor, heads: int, lengths: list[int]) -> Iterator[Case]:
    """The three fused linear layers, and those of other cards."""
    tokens, width = x.shape
    random = lambda *shape: torch.randn(*shape, device="cuda", dtype=x.dtype)  # noqa: E731
    rotation = rotation_for(width // heads, lengths)
    statistics = fused_linear.row_statistics(x, fused_linear.chunks_of(width))
    hidden, bias, wide_bias = random(tokens, 4 * width), random(width), random(4 * width)
    up, down, out = (random(*shape) / width for shape in ((4 * width, width), (width, 4 * width), (width, width)))
    qkv_weight, qkv_bias = random(3 * width, width) / width, random(3 * width)
    qkv, narrow = random(tokens, 3 * width), random(tokens, width)
    size, product = x.element_size() * tokens * width, 2 * tokens * width * width
    ours, rows = fused_linear, HighLow(x)
    qkv_arguments = (rows, statistics, HighLow(qkv_weight), qkv_bias, rotation)
    yield ("norm_linear_rotary", lambda: ours.norm_linear_rotary(*qkv_arguments),
           lambda: ours.norm_linear_rotary_ref(*qkv_arguments), 3 * product, 0)  # fmt: skip
    yield ("norm_linear_gelu", lambda: ours.norm_linear_gelu(rows, statistics, HighLow(up), wide_bias),
           lambda: ours.norm_linear_gelu_ref(rows, statistics, HighLow(up), wide_bias), 4 * product, 0)  # fmt: skip
    for name, h, weight, work in (("out", narrow, HighLow(out), product), ("down", hidden, HighLow(down), 4 * product)):
        yield (f"linear_residual_{name}", partial(ours.linear_residual_, rows, h, weight, bias),
               partial(ours.linear_residual_ref_, rows, h, weight, bias), work, 0)  # fmt: skip
    yield ("row_statistics", lambda: ours.row_statistics(x), lambda: ours.row_statistics_ref(x), 0, size)
    yield ("linear_gelu", lambda: linear_gelu.linear_gelu(x, up, wide_bias),
           lambda: linear_gelu.linear_gelu_ref(x, up, wide_bias), 4 * product, 0)  # fmt: skip
    yield from scaled_cases(x, up, qkv_weight, rotation)
    yield ("rotary", lambda: rotary.rotary_(qkv, rotation, heads), lambda: rotary.rotary_ref_(qkv, rotation, heads),
           0, 4 * size)  # fmt: skip


def scaled_cases(
    x: torch.Tensor, up: torch.Tensor, qkv_weight: torch.Tensor, rotation: rotary.Rotation
) -> Iterator[Case]:
    """The linear layers of other cards with a norm inside, where the card has tiles for them."""
    if not scaled_linear.scales_inside(x):
        return
    (tokens, width), ours = x.shape, scaled_linear
    scale, shift, bias = (torch.rand(size, device="cuda") for size in (tokens, 4 * width, 4 * width))
    scaled_up = (x, scale, up, shift, bias)
    scaled_qkv = (x, scale, qkv_weight, shift[: 3 * width], bias[: 3 * width], rotation)
    product = 2 * tokens * width * width
    yield ("scaled_linear_gelu", lambda: ours.scaled_linear_gelu(*scaled_up),
           lambda: ours.scaled_linear_gelu_ref(*scaled_up), 4 * product, 0)  # fmt: skip
    yield ("scaled_linear_rotary", lambda: ours.scaled_linear_rotary(*scaled_qkv),
           lambda: ours.scaled_linear_rotary_ref(*scaled_qkv), 3 * product, 0)  # fmt: skip


def other_cases(x: torch.Tensor, heads: int, lengths: list[int]) -> Iterator[Case]:
    """Attention and the kernels that only move bytes."""
    tokens, width = x.shape
    qkv = torch.randn(tokens, 3 * width, device="cuda", dtype=x.dtype)
    bounds = torch.tensor([0, *lengths]).cumsum(0).to("cuda", torch.int32)
    delta, gain = torch.zeros_like(x), torch.ones(width, device="cuda")
    size, work = x.element_size() * tokens * width, 4.0 * width * sum(length**2 for length in lengths)
    arguments = (qkv, bounds, max(lengths), heads, (width / heads) ** -0.5)
    yield (f"varlen_attention_{max(lengths)}", lambda: attention.varlen_attention(*arguments),
           lambda: attention.varlen_attention_ref(*arguments), work, 0)  # fmt: skip
    yield ("add_layer_norm", lambda: layer_norm.add_layer_norm(x, delta, gain, gain),
           lambda: layer_norm.add_layer_norm_ref(x, delta, gain, gain), 0, 4 * size)  # fmt: skip
    yield ("row_scale", lambda: layer_norm.row_scale(x, gain), lambda: layer_norm.row_scale_ref(x, gain), 0, size)
    yield "pool", lambda: pooling.pool(x, bounds, "mean"), lambda: pooling.pool_ref(x, bounds, "mean"), 0, size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=WIDTHS, default="650M")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    width, heads = WIDTHS[options.model]
    common = conditions() | {"model": options.model, "dtype": options.dtype, "tokens": options.tokens}
    rows: list[dict[str, object]] = []
    cold, sustained = matrix_rate(0), matrix_rate(2)
    print(f"{common['device']}: bf16 8192^3 {cold:.0f} TFLOP/s cold, {sustained:.0f} sustained")
    with torch.inference_mode():
        x = torch.randn(options.tokens, width, device="cuda", dtype=DTYPES[options.dtype])
        cases = [case for length in (1024, 512, 160)
                 for case in other_cases(x, heads, [length] * (options.tokens // length))
                 if length == 1024 or case[0].startswith("varlen")]  # fmt: skip
        lengths = [1024] * (options.tokens // 1024)
        linear = fp8_cases if options.dtype == "fp8" else linear_cases
        for name, kernel, twin, operations, moved in [*cases, *linear(x, heads, lengths)]:
            times = milliseconds(kernel, options.repeats)
            plain = median(milliseconds(twin, 3))
            middle = median(times)
            rate = operations / middle / 1e9 if operations else moved / middle / 1e6
            unit = "TFLOP/s" if operations else "GB/s"
            print(f"{name:24s} {middle:8.3f} ms  {rate:7.0f} {unit:8s} twin {plain:8.3f} ms  x{plain / middle:.1f}")
            rows.append(common | {"kernel": name, "ms_min": min(times), "ms_median": middle, "ms_max": max(times),
                                  "rate": rate, "unit": unit, "twin_ms_median": plain, "matmul_tflops_cold": cold,
                                  "matmul_tflops_sustained": sustained})  # fmt: skip
    write_csv(RESULTS / f"kernels-{options.model}-{options.dtype}.csv", rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
