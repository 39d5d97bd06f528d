"""What recording the device ten times a second costs: the same batches with and without it, in turn, in one process.

Windows of about a second each run the same batches; windows with and without the sampler follow each other as
off, on, on, off, so that a drifting clock favours neither. Each neighbouring pair gives one ratio; pairs of equal
windows tell how much of it is noise. Writes ``benchmarks/results/sampling-<size>.csv``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import cycle, islice, pairwise
from pathlib import Path
from statistics import mean, quantiles, stdev
from typing import Any

import torch
from benchmarks.environment import RESULTS, conditions, write_csv
from benchmarks.inputs import SHAPES, budget_of, packed_batches, random_esm2, read_sequences
from benchmarks.peers.bench_engines import run_ours

from virnucpro.model.esm2 import PackedEsm2
from virnucpro.monitor.gpu import DeviceSampler
from virnucpro.pipeline.async_inference import device_uuid
from virnucpro.pipeline.embed import SAMPLE_INTERVAL
from virnucpro.pipeline.engine import Engine
from virnucpro.pipeline.output_plan import OutputPlan

#: Whether the sampler runs in a window, repeated.
ORDER = (False, True, True, False)


class Bench:
    """One engine, and the batches of one window."""

    def __init__(self, engine: Engine, batches: Sequence[Any], window_seconds: float) -> None:
        self._engine = engine
        self.uuid = device_uuid(engine.device)
        self._batches = list(batches)
        self._run()
        seconds = self._run()
        count = max(1, round(window_seconds / seconds * len(batches)))
        # Evenly over the lengths where a window is shorter than one pass, several passes where it is longer.
        step = max(1, len(batches) // count)
        self._batches = list(islice(cycle(batches[::step]), count))
        self._run()

    @property
    def tokens(self) -> int:
        """Tokens of one window."""
        return sum(batch.tokens for batch in self._batches)

    def window(self, sampled: bool) -> tuple[float, float]:
        """Seconds of one window, and the readings per second taken in it."""
        if not sampled:
            return self._run(), 0.0
        with DeviceSampler(self.uuid, SAMPLE_INTERVAL) as sampler:
            # Opening the driver belongs to a process's start, not to its batches.
            while len(sampler.samples()) < 2:
                time.sleep(SAMPLE_INTERVAL / 10)
            before = len(sampler.samples())
            seconds = self._run()
            readings = len(sampler.samples()) - before
        return seconds, readings / seconds

    def _run(self) -> float:
        self._synchronise()
        begun = time.perf_counter()
        run_ours(self._engine, self._batches)
        self._synchronise()
        return time.perf_counter() - begun

    def _synchronise(self) -> None:
        if self._engine.device.type == "cuda":
            torch.cuda.synchronize(self._engine.device)


def spread(name: str, ratios: Sequence[float]) -> dict[str, float]:
    """Quartiles, mean and its standard error."""
    lower, middle, upper = quantiles(ratios, n=4)
    return {
        f"{name}_median": middle,
        f"{name}_p25": lower,
        f"{name}_p75": upper,
        f"{name}_mean": mean(ratios),
        f"{name}_standard_error": stdev(ratios) / len(ratios) ** 0.5,
    }


def measure(bench: Bench, seconds: float) -> dict[str, object]:
    """Throughput with the sampler over throughput without it, from as many windows as ``seconds`` allow."""
    windows: list[tuple[bool, float]] = []
    rates = []
    end = time.perf_counter() + seconds
    for sampled in cycle(ORDER):
        taken, rate = bench.window(sampled)
        windows.append((sampled, taken))
        if sampled:
            rates.append(rate)
        if time.perf_counter() >= end and len(windows) >= 2 * len(ORDER) + 1:
            break
    ratios, control = [], []
    for (first_sampled, first), (second_sampled, second) in pairwise(windows):
        if first_sampled == second_sampled:
            control.append(first / second)
        else:
            ratios.append(first / second if second_sampled else second / first)
    off = [taken for sampled, taken in windows if not sampled]
    return {
        "windows": len(windows),
        "window_seconds": mean(off),
        "tokens_per_second_without": bench.tokens / mean(off),
        "readings_per_second": mean(rates),
        **spread("ratio", ratios),
        **spread("control", control),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--size", choices=SHAPES, default="650M")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", default="fp16", help="on a GPU; a CPU computes in fp32")
    parser.add_argument("--budget", type=int, help="tokens per batch, otherwise as the pipeline takes")
    parser.add_argument("--seconds", type=float, default=36, help="of measuring, after the model is built")
    parser.add_argument("--window", type=float, default=1, help="seconds of one window")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "bench_sampling.py: no CUDA device here; use --device cpu for a trial\n")
    device = torch.device("cuda:0" if options.device == "cuda" else "cpu")
    precision = options.precision if options.device == "cuda" else "fp32"
    budget = budget_of(options.size, precision, options.device, options.budget)
    model = PackedEsm2.from_fair_esm(random_esm2(options.size, device), precision, device)
    engine = Engine(model, device, OutputPlan.of(model.config.layers))
    batches = packed_batches(read_sequences(options.fasta), budget, pinned=options.device == "cuda")
    row = {
        "model": options.size,
        "precision": precision,
        **measure(Bench(engine, batches, options.window), options.seconds),
        "data": options.fasta.name,
        "budget": budget,
        **conditions(),
    }
    write_csv(options.out or RESULTS / f"sampling-{options.size}.csv", [row])
    print(
        f"{options.size} on {row['device']}: throughput with {row['readings_per_second']:.1f} readings/s over that "
        f"without: {row['ratio_median']:.4f} (quartiles {row['ratio_p25']:.4f} to {row['ratio_p75']:.4f}, mean "
        f"{row['ratio_mean']:.4f} ± {row['ratio_standard_error']:.4f}); equal windows {row['control_mean']:.4f} ± "
        f"{row['control_standard_error']:.4f}"
    )


if __name__ == "__main__":
    main()
