"""Whether the recorded utilisation and energy are true: one real shard through ``bin/embed_shard.py`` on a GPU.

The script runs inside a process that has the CUDA profiler (CUPTI through torch.profiler) and a log of the card's own
energy counter on beside it, so that all three see the same kernels over the same seconds. Compared are

- the mean of the recorded utilisation from the first batch's start to the last one's end, with the share of that
  window in which the profiler saw a kernel run;
- the recorded energy of the whole shard, and the integral of the recorded power, with the difference of the counter
  over the same seconds.

Writes ``benchmarks/results/monitor.csv``, one row per model size.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.environment import RESULTS, ROOT, conditions, write_csv

#: Tokens of the shard for each size: some 10 to 25 seconds on an H100.
TOKENS = {"8M": 40_000_000, "650M": 8_000_000}
#: What the project promises.
MOST_POINTS, MOST_PERCENT = 5.0, 5.0
#: A kernel whose start is known on both clocks.
ANCHOR = "spin_kernel"
COUNTER_SECONDS = 0.05


class CounterLog:
    """The card's energy counter over time, read by a thread that shares nothing with the project's sampler."""

    def __init__(self, uuid: str) -> None:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        self._read = lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        self._read()
        self.readings: list[tuple[float, float]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[tuple[float, float]]:
        """End; returns (unix seconds, joules)."""
        self._stopping.set()
        self._thread.join()
        return self.readings

    def _run(self) -> None:
        while not self._stopping.wait(COUNTER_SECONDS):
            self.readings.append((time.time(), self._read()))


def run_profiled(arguments: Sequence[str], evidence: Path) -> None:
    """The body of the process: ``embed_shard.py`` with profiler and counter on; writes what they saw."""
    import torch

    from virnucpro.pipeline.async_inference import device_uuid

    uuid = device_uuid(torch.device("cuda", torch.cuda.current_device()))
    assert uuid is not None
    counter = CounterLog(uuid)
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
    profiler.start()
    torch.cuda.synchronize()
    torch.cuda._sleep(1000)
    torch.cuda.synchronize()
    before = time.time()
    torch.cuda._sleep(1000)
    torch.cuda.synchronize()
    anchored = (before + time.time()) / 2
    script = ROOT / "bin" / "embed_shard.py"
    sys.argv = [str(script), *arguments]
    code: object = 0
    try:
        # As __main__, so that the loader's workers import the script and not this file.
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as ended:
        code = ended.code
    readings = counter.stop()
    torch.cuda.synchronize()
    profiler.stop()
    trace = evidence / "trace.json"
    profiler.export_chrome_trace(str(trace))
    (evidence / "evidence.json").write_text(json.dumps({"anchored": anchored, "counter": readings}))
    sys.exit(0 if code is None else int(str(code)))


def kernel_windows(trace: Mapping[str, Any], anchored: float) -> list[tuple[float, float]]:
    """Unix seconds in which each kernel ran, in order of their starts; copies are no kernels.

    Args:
        trace: what torch.profiler exported.
        anchored: unix seconds at which the second of the anchor kernels ran.
    """
    kernels = [
        (event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6, event["name"])
        for event in trace["traceEvents"]
        if event.get("cat") == "kernel"
    ]
    anchors = sorted(start for start, _, name in kernels if ANCHOR in name)
    if len(anchors) < 2:
        raise SystemExit(f"the profiler saw {len(kernels)} kernels and {len(anchors)} of 2 anchors")
    offset = anchored - anchors[1]
    return sorted((start + offset, end + offset) for start, end, name in kernels if ANCHOR not in name)


def busy_seconds(windows: Iterable[tuple[float, float]], start: float, end: float) -> float:
    """Seconds from ``start`` to ``end`` covered by at least one window; ``windows`` in order of their starts."""
    busy, reached = 0.0, start
    for begun, ended in windows:
        begun, ended = max(begun, reached), min(ended, end)
        busy += max(0.0, ended - begun)
        reached = max(reached, ended)
    return busy


def at(series: Sequence[tuple[float, float]], moment: float) -> float:
    """A series at a moment, between its points on a straight line."""
    index = min(max(bisect.bisect([time for time, _ in series], moment), 1), len(series) - 1)
    (t0, v0), (t1, v1) = series[index - 1], series[index]
    return v0 + (v1 - v0) * (moment - t0) / (t1 - t0)


def integral(series: Sequence[tuple[float, float]]) -> float:
    """Trapezoid rule over all points."""
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(series))


def compare(outdir: Path, evidence: Path) -> dict[str, object]:
    """The shard's own records beside what profiler and counter saw."""
    import pyarrow.parquet as pq

    summary = json.loads((outdir / "summary.json").read_text())
    batches = pq.read_table(outdir / "batches.parquet").to_pydict()
    samples = pq.read_table(outdir / "gpu_metrics.parquet").to_pydict()
    seen = json.loads((evidence / "evidence.json").read_text())
    start, end = min(batches["start"]), max(batches["end"])
    kernels = kernel_windows(json.loads((evidence / "trace.json").read_text()), seen["anchored"])
    profiled = 100 * busy_seconds(kernels, start, end) / (end - start)
    first, last = samples["time"][0], samples["time"][-1]
    counted = at(seen["counter"], last) - at(seen["counter"], first)
    power = [(t, w) for t, w in zip(samples["time"], samples["power_watts"], strict=True) if w is not None]
    integrated = integral(power)
    recorded = summary["energy_joules"]
    return {
        "tokens": summary["tokens"],
        "batches": summary["batches"],
        "kernels": len(kernels),
        "window_seconds": end - start,
        "tokens_per_second": summary["tokens_per_second"],
        "utilization_recorded": summary["utilization_percent"],
        "utilization_profiler": profiled,
        "utilization_difference_points": summary["utilization_percent"] - profiled,
        "energy_seconds": last - first,
        "energy_source": summary["energy_source"],
        "energy_recorded_joules": recorded,
        "energy_integrated_joules": integrated,
        "energy_counter_joules": counted,
        "energy_recorded_difference_percent": 100 * (recorded / counted - 1),
        "energy_integrated_difference_percent": 100 * (integrated / counted - 1),
        "batch_energy_joules": summary["batch_energy_joules"],
    }


def measure(size: str, fasta: Path, folder: Path, precision: str, tokens: int) -> dict[str, object]:
    """Make a checkpoint and a shard, embed it under observation and compare."""
    from benchmarks.inputs import read_sequences
    from benchmarks.make_checkpoint import OFFICIAL, write_checkpoint
    from benchmarks.measurements.bench_process import write_shard

    checkpoint = folder / f"{OFFICIAL[size]}.pt"
    write_checkpoint(size, checkpoint)
    sequences = read_sequences(fasta)
    repeats = max(1, round(tokens / sum(len(s) + 2 for s in sequences)))
    shard = folder / "shard-00000.fasta"
    write_shard(sequences, repeats, shard)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'bin'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    def run(command: Sequence[object]) -> None:
        subprocess.run([sys.executable, *map(str, command)], check=True, env=environment)

    run([ROOT / "bin" / "fetch_model.py", "--model", checkpoint, "--outdir", folder])
    outdir = folder / "shard-00000"
    options = ["--shard", shard, "--model", checkpoint, "--model-json", folder / "model.json", "--outdir", outdir]
    options += ["--device", "cuda", "--precision", precision]
    run(["-m", __spec__.name, "--evidence", folder, "--", *options])
    return {"model": size, "precision": precision, **compare(outdir, folder), "data": f"{repeats} x {fasta.name}"}


def report(row: Mapping[str, Any]) -> None:
    """Print a row's comparison in words."""
    points, percent = row["utilization_difference_points"], row["energy_recorded_difference_percent"]
    print(
        f"{row['model']}: utilisation {row['utilization_recorded']:.1f} % recorded, "
        f"{row['utilization_profiler']:.1f} % by the profiler ({points:+.1f} points, "
        f"{'holds' if abs(points) <= MOST_POINTS else 'FAILS'}); energy "
        f"{row['energy_recorded_joules']:,.0f} J recorded ({row['energy_source']}), "
        f"{row['energy_counter_joules']:,.0f} J by the counter ({percent:+.1f} %, "
        f"{'holds' if abs(percent) <= MOST_PERCENT else 'FAILS'}), {row['energy_integrated_joules']:,.0f} J from power "
        f"({row['energy_integrated_difference_percent']:+.1f} %)",
        flush=True,
    )


def main() -> None:
    """Measure, print and write; or, with ``--evidence``, be the observed process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="+", metavar="FASTA", help="proteins, repeated to fill a shard")
    parser.add_argument("--evidence", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", default="8M,650M", help="comma-separated")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--tokens", type=int, help="of each shard")
    parser.add_argument("--out", type=Path, default=RESULTS / "monitor.csv")
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        parser.exit(2, "bench_monitor.py: no CUDA device here, and nothing to compare with without one\n")
    if options.evidence:
        run_profiled(options.arguments, options.evidence)
    rows = []
    for size in options.sizes.split(","):
        with tempfile.TemporaryDirectory() as name:
            tokens = options.tokens or TOKENS[size]
            row = measure(size, Path(options.arguments[0]), Path(name), options.precision, tokens)
        rows.append({**row, **conditions()})
        report(rows[-1])
        write_csv(options.out, rows)


if __name__ == "__main__":
    main()
