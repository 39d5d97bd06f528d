"""Attention beside PyTorch's on one GPU: ours, and SDPA's flash and cuDNN back ends, over sequences of one length.

    python -m benchmarks.measurements.bench_attention

Ours reads queries, keys and values where the product before it leaves them and knows no padding; SDPA is given them
apart and contiguous, which suits it best. All are timed in turn, round after round, each round in the other order than
the one before; a row gives the median of the rounds. The last rows take lengths as a packed batch has them: there SDPA
stands for what padding to the longest would cost.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from benchmarks.environment import RESULTS, conditions, write_csv
from benchmarks.measurements.bench_kernels import milliseconds
from torch.nn.attention import SDPBackend, sdpa_kernel

from virnucpro.kernels.attention import varlen_attention
from virnucpro.kernels.tiles import attention_tiles

#: Head dimension, heads: of 35M, 150M, 650M and 15B.
HEADS = {24: 20, 32: 20, 64: 20, 128: 40}
LENGTHS = (160, 512, 1024, 4096, 16384, 34352)
#: Lengths around the first, second and third quartile of proteins.
RAGGED = (range(168, 228), range(318, 378), range(576, 636))
TOKENS = 65536
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def candidates(lengths: list[int], head_dim: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Calls to time, by name."""
    heads, longest = HEADS[head_dim], max(lengths)
    qkv = torch.randn(sum(lengths), 3 * heads * head_dim, device="cuda", dtype=dtype)
    bounds = torch.tensor([0, *lengths]).cumsum(0).to("cuda", torch.int32)
    arguments = (qkv, bounds, longest, heads, head_dim**-0.5)
    tiles = attention_tiles(qkv, head_dim, longest)
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: varlen_attention(*arguments),
        "plain": lambda: varlen_attention(*arguments, tiles=tiles),
    }
    query, key, value = torch.randn(3, len(lengths), heads, longest, head_dim, device="cuda", dtype=dtype)
    for name, backend in BACKENDS.items():

        def peer(backend: SDPBackend = backend) -> None:
            with sdpa_kernel(backend):
                F.scaled_dot_product_attention(query, key, value)

        calls[name] = peer
    return calls


def measure(lengths: list[int], head_dim: int, dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """TFLOP/s by name, counting what the lengths need."""
    calls = candidates(lengths, head_dim, dtype)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name in list(calls)[:: -1 if turn % 2 else 1]:
            times[name].append(median(milliseconds(calls[name], 8)))
    work = 4 * sum(length**2 for length in lengths) * HEADS[head_dim] * head_dim
    return {name: work / median(taken) / 1e9 for name, taken in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    common, rows = conditions() | {"dtype": options.dtype}, []
    for head_dim in HEADS:
        shapes = [(str(length), [length] * max(1, TOKENS // length)) for length in LENGTHS]
        shapes += [(f"{some[0]}-{some[-1]}", [*some] * (TOKENS // sum(some))) for some in RAGGED]
        for name, lengths in shapes:
            rates = measure(lengths, head_dim, DTYPES[options.dtype], options.rounds)
            best = max(rates[peer] for peer in BACKENDS)
            print(
                f"head dimension {head_dim:3d}, {name:>7s} tokens: "
                + ", ".join(f"{candidate} {rate:.0f}" for candidate, rate in rates.items())
                + f" TFLOP/s; {rates['ours'] / best:.2f} of the better back end",
                flush=True,
            )
            shape = {"head_dim": head_dim, "heads": HEADS[head_dim], "length": name, "sequences": len(lengths)}
            rows.append(common | shape | {f"{candidate}_tflops": rate for candidate, rate in rates.items()})
            write_csv(RESULTS / f"attention-{options.dtype}.csv", rows)
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
