"""Both forms of the layers, fused and plain, for every model size and precision on one GPU, beside Hugging Face.

    python -m benchmarks.measurements.bench_paths FASTA

Weights are random; an even sample of the proteins keeps a run near half a second, and runs before those that count
bring the card to its power limit, as a long run does. The rate of a product stands beside: on the rested card, and
right after the runs. ESM-1b and ESM-1v are measured where --sizes names them, without the peer. Writes
``benchmarks/results/paths.csv``, which ``virnucpro.model.paths`` has to follow (tests/benchmarks/test_paths.py).
"""

from __future__ import annotations

import argparse
import gc
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from benchmarks.environment import RESULTS, conditions, quantiles, write_csv
from benchmarks.inputs import ALL_SHAPES, FAMILIES, budget_of, config_of, flops, packed_batches, read_sequences
from benchmarks.peers.bench_engines import hugging_face_model, matmul_rate, run_hugging_face, run_ours, timed

from virnucpro.data.tokens import tokenise
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.parameters import trained_inv_freq
from virnucpro.model.registry import Esm2Config
from virnucpro.pipeline.engine import Engine
from virnucpro.pipeline.output_plan import OutputPlan

PRECISIONS = ("fp16", "bf16", "fp8")
PATHS = {"fused": True, "plain": False}
#: One in so many proteins.
SAMPLING = {"8M": 1, "35M": 2, "150M": 4, "650M": 8, "3B": 32, "15B": 96, "ESM-1b": 8, "ESM-1v": 8}
DEVICE = torch.device("cuda")
PROCESSES = min(16, os.cpu_count() or 1)
#: Seconds until the clock has come down to what the power limit allows: an H100's does within two.
WARM_UP_S = 4.0
#: Tokens of a longest sequence that between them have every kernel of a path compiled.
COMPILED_LENGTHS = (100, 200, 400, 500, 900, 1024)


class RandomState(Mapping[str, torch.Tensor]):
    """A state dict made up as it is read, so that no two tensors of a large model need be there at once."""

    def __init__(self, config: Esm2Config) -> None:
        self._config = config
        self._shapes = config.shapes()

    def __getitem__(self, key: str) -> torch.Tensor:
        if key.endswith("inv_freq"):
            return trained_inv_freq(self._config.head_dim)
        values = 0.02 * torch.randn(self._shapes[key], device=DEVICE)
        return values + 1 if "norm" in key and key.endswith("weight") else values

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def build(size: str, precision: str, path: str, layers: int) -> PackedEsm2:
    config = config_of(size, layers)
    return PackedEsm2.from_state(config, RandomState(config), precision, DEVICE, fused=PATHS[path])


def compile_kernels(case: tuple[str, str, str]) -> None:
    """Fill Triton's cache."""
    model = build(*case, layers=1)
    engine = Engine(model, DEVICE, OutputPlan.of(1))
    run_ours(engine, [packed_batches(["A" * (length - 2)], 2048, pinned=True)[0] for length in COMPILED_LENGTHS])


class Timing(NamedTuple):
    """Seconds of each repetition, the most memory in use, and the rate of a product right after, in TFLOP/s."""

    seconds: list[float]
    peak_gib: float
    matmul_tflops: float


def timing_of(run: Callable[[], object], repeats: int) -> Timing:
    torch.cuda.reset_peak_memory_stats()
    seconds = timed(run, repeats, WARM_UP_S)
    return Timing(seconds, torch.cuda.max_memory_allocated() / 2**30, matmul_rate())


def row_of(size: str, precision: str, path: str, lengths: list[int], timing: Timing) -> dict[str, Any]:
    layers, dim, _ = ALL_SHAPES[size]
    tokens, middle = sum(lengths), median(timing.seconds)
    rate = flops(lengths, layers, dim) / middle / 1e12
    print(
        f"{size:7s}{precision:5s}{path:13s}{tokens / middle:12,.0f} tokens/s {rate:7.1f} TFLOP/s, "
        f"{rate / timing.matmul_tflops:.3f} of the product after it",
        flush=True,
    )
    return {
        "model": size, "precision": precision, "path": path, "sequences": len(lengths), "tokens": tokens,
        "tokens_per_second": tokens / middle, "tflops": rate, "peak_gib": timing.peak_gib,
        **quantiles(timing.seconds), "matmul_tflops_after": timing.matmul_tflops,
    }  # fmt: skip


def ours(size: str, precision: str, path: str, sequences: list[str], repeats: int) -> Timing:
    layers = ALL_SHAPES[size][0]
    engine = Engine(build(size, precision, path, layers), DEVICE, OutputPlan.of(layers))
    budget = min(budget_of(size, precision, "cuda", None), 32768 if size == "15B" else 1 << 30)
    batches = packed_batches(sequences, budget, pinned=True)
    return timing_of(lambda: run_ours(engine, batches), repeats)


def hugging_face(size: str, sequences: list[str], repeats: int) -> Timing:
    model = hugging_face_model(size)
    tokens = [torch.from_numpy(tokenise(sequence)) for sequence in sequences]
    return timing_of(lambda: run_hugging_face(model, tokens), repeats)


def measure(size: str, sequences: list[str], precisions: list[str], repeats: int) -> Iterator[dict[str, Any]]:
    """A row for each precision and path, then one for Hugging Face."""
    lengths = [len(sequence) + 2 for sequence in sequences]
    for precision, path in itertools.product(precisions, PATHS):
        yield row_of(size, precision, path, lengths, ours(size, precision, path, sequences, repeats))
        gc.collect()
        torch.cuda.empty_cache()
    if size in FAMILIES:
        return
    yield row_of(size, "bf16", "hugging-face", lengths[::4], hugging_face(size, sequences[::4], repeats))
    gc.collect()
    torch.cuda.empty_cache()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--sizes", default=",".join(size for size in SAMPLING if size not in FAMILIES))
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "paths.csv")
    options = parser.parse_args()
    sizes, precisions = options.sizes.split(","), options.precisions.split(",")
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        pool.map(compile_kernels, itertools.product(sizes, precisions, PATHS), chunksize=1)
    extra, rows = {"data": options.fasta.name, **conditions()}, []
    for size in sizes:
        sequences = read_sequences(options.fasta)[:: SAMPLING[size]]
        matmul = {"matmul_tflops": matmul_rate()}
        for row in measure(size, sequences, precisions, options.repeats):
            rows.append(row | matmul | extra)
            write_csv(options.out, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
