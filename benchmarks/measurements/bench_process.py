"""What a whole EMBED_SHARD process reaches of the engine's rate in memory: FASTA to Parquet, weights on local disk.

Repeats the input until the process runs for a while, embeds it twice (the first run fills the kernel cache), then
runs the same batches from memory. Writes ``benchmarks/results/process-<size>.csv``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq
import torch
from benchmarks.environment import RESULTS, ROOT, conditions, write_csv
from benchmarks.inputs import SHAPES, budget_of, packed_batches, read_sequences
from benchmarks.peers.bench_engines import run_ours, timed

from virnucpro.model.weights import load_model
from virnucpro.pipeline.engine import Engine
from virnucpro.pipeline.output_plan import OutputPlan


def write_shard(sequences: list[str], repeats: int, path: Path) -> int:
    """A shard as SPLIT_FASTA makes it, longest first; returns its tokens."""
    with path.open("w") as handle:
        index = 0
        for sequence in sequences:
            for _ in range(repeats):
                handle.write(f">{index}\n{sequence}\n")
                index += 1
    return repeats * sum(len(s) + 2 for s in sequences)


def describe(model: Path, folder: Path) -> Path:
    """The model's description, as DESCRIBE_MODEL makes it before any shard."""
    command: list[str | Path] = [sys.executable, ROOT / "bin" / "fetch_model.py", "--model", model, "--outdir", folder]
    subprocess.run(command, check=True, cwd=folder)
    return folder / "model.json"


def run_process(shard: Path, model: Path, description: Path, outdir: Path, precision: str) -> dict[str, float]:
    """Embed in a process of its own; times from its own records."""
    command: list[str | Path] = ["--shard", shard, "--model", model, "--model-json", description, "--outdir", outdir]
    program: list[str | Path] = [sys.executable, ROOT / "bin" / "embed_shard.py"]
    subprocess.run([*program, *command, "--precision", precision, "--device", "cuda"], check=True)
    summary = json.loads((outdir / "summary.json").read_text())
    batches = pq.read_table(outdir / "batches.parquet").to_pydict()
    first, last = 0, len(batches["end"]) - 1
    steady_tokens = sum(batches["tokens"][1:])
    states = batches["queue_state"][1:]
    return {
        "startup_seconds": summary["startup_seconds"],
        "steady_tokens_per_second": steady_tokens / (batches["end"][last] - batches["end"][first]),
        "starved_share": states.count("starved") / max(1, len(states)),
        "batches": len(states) + 1,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--size", choices=SHAPES, default="650M")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--repeats", type=int, default=8, help="copies of the input in the shard")
    parser.add_argument("--budget", type=int, help="tokens per batch, otherwise as the pipeline takes")
    options = parser.parse_args()
    sequences = read_sequences(options.fasta)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shard = folder / "shard-00000.fasta"
        tokens = write_shard(sequences, options.repeats, shard)
        description = describe(options.checkpoint, folder)
        for outdir in (folder / "first", folder / "second"):
            measured = run_process(shard, options.checkpoint, description, outdir, options.precision)
    device = torch.device("cuda")
    budget = budget_of(options.size, options.precision, "cuda", options.budget)
    model = load_model(options.checkpoint, options.precision, device)
    engine = Engine(model, device, OutputPlan.of(model.config.layers))
    batches = packed_batches([s for s in sequences for _ in range(options.repeats)], budget, pinned=True)
    seconds = timed(lambda: run_ours(engine, batches), 2)
    in_memory = tokens / median(seconds)
    row = {
        "model": options.size,
        "precision": options.precision,
        "tokens": tokens,
        **measured,
        "in_memory_tokens_per_second": in_memory,
        "share_of_in_memory": measured["steady_tokens_per_second"] / in_memory,
        "data": options.fasta.name,
        **conditions(),
    }
    write_csv(RESULTS / f"process-{options.size}.csv", [row])
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
