"""What the self-check costs a task and what it finds, on this machine's device: start-up with it and without, in turn.

    python -m benchmarks.measurements.bench_self_check proteins.fasta model.pt --precisions fp16,bf16,fp8

Each start is a process of its own over the same short shard, whose longest, middle and shortest sequence are those of
the input; the first, which fills the kernels' cache, is not counted. The share is that of a shard of ten minutes.
On a GPU it shows what a CPU cannot: the compiled kernels' figures by precision, and the memory that the twin takes
beside the model. In the same turns PyTorch alone is started, up to its first tensor on the device: a task's time to its
first finished batch is held against that. Writes ``benchmarks/results/self-check-<device>.csv``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from benchmarks.environment import RESULTS, ROOT, conditions, write_csv
from benchmarks.inputs import read_sequences
from benchmarks.measurements.bench_process import describe, write_shard

from virnucpro.output.files import BATCHES_FILE

#: Seconds of the shard that the cost is held against.
SHARD_SECONDS = 600.0


def start(folder: Path, model: Path, description: Path, arguments: list[str], number: int) -> dict[str, Any]:
    """One task over the shard; returns its summary, and the processor's seconds that it took."""
    outdir = folder / f"out-{number}"
    paths = ["--shard", folder / "shard-00000.fasta", "--model", model, "--model-json", description, "--outdir", outdir]
    command = [sys.executable, ROOT / "bin" / "embed_shard.py", *paths, *arguments]
    before, begun = os.times(), time.time()
    subprocess.run([str(word) for word in command], check=True, stderr=subprocess.DEVNULL)
    after = os.times()
    summary: dict[str, Any] = json.loads((outdir / "summary.json").read_text())
    used = after.children_user + after.children_system - before.children_user - before.children_system
    first: float = pc.min(pq.read_table(outdir / BATCHES_FILE)["end"]).as_py()
    return summary | {"processor_seconds": used, "first_batch_seconds": first - begun}


def start_bare(device: str) -> float:
    """Seconds of a process that starts PyTorch and has one tensor on the device."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import torch; torch.zeros(1, device={device!r})"], check=True)
    return time.perf_counter() - begun


def ends_and_middle(sequences: list[str], count: int) -> list[str]:
    """Evenly spaced sequences from the longest to the shortest."""
    ordered = sorted(sequences, key=len, reverse=True)
    places = {place * (len(ordered) - 1) // max(count - 1, 1) for place in range(count)}
    return [ordered[place] for place in sorted(places)]


def measure(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Starts with the check and without, in turn; the row of their medians."""
    checkpoint = options.checkpoint.absolute()
    arguments = ["--device", options.device, "--precision", precision]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sequences = ends_and_middle(read_sequences(options.fasta, options.max_length), options.sequences)
        write_shard(sequences, 1, folder / "shard-00000.fasta")
        description = describe(checkpoint, folder)
        on_cpu = start(folder, checkpoint, description, arguments, -1)["device_uuid"] is None
        on, off, bare = [], [], []
        for number in range(options.repeats):
            bare.append(start_bare("cpu" if on_cpu else "cuda"))
            on.append(start(folder, checkpoint, description, arguments, 2 * number))
            off.append(start(folder, checkpoint, description, [*arguments, "--no-self-check"], 2 * number + 1))
    checked, unchecked = (median(each["startup_seconds"] for each in runs) for runs in (on, off))
    first = median(each["first_batch_seconds"] for each in on)
    used, unchecked_used = (median(each["processor_seconds"] for each in runs) for runs in (on, off))
    return {
        "model": checkpoint.stem,
        "precision": on[0]["metadata"]["precision"],
        "self_check": on[0]["self_check"],
        "greatest_residue_l2": on[0]["greatest_residue_l2"],
        "least_pooled_cosine": on[0]["least_pooled_cosine"],
        "startup_seconds": checked,
        "startup_seconds_unchecked": unchecked,
        "check_seconds": checked - unchecked,
        "startup_ratio": checked / unchecked,
        "share_of_ten_minutes": (checked - unchecked) / SHARD_SECONDS,
        "first_batch_seconds": first,
        "bare_seconds": median(bare),
        "first_batch_ratio": first / median(bare),
        "processor_seconds": used,
        "processor_seconds_unchecked": unchecked_used,
        "repeats": options.repeats,
        "data": options.fasta.name,
        **conditions(),
        "on_gpu": not on_cpu,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--precisions", default="fp16", help="comma-separated; a CPU computes in fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sequences", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=1022)
    options = parser.parse_args()
    rows = []
    for precision in options.precisions.split(","):
        row = measure(options, precision)
        print(json.dumps(row, indent=2), flush=True)
        device = "gpu" if row.pop("on_gpu") else "cpu"
        # After each, so that a run cut short leaves what it has.
        rows.append(row)
        write_csv(RESULTS / f"self-check-{device}.csv", rows)


if __name__ == "__main__":
    main()
