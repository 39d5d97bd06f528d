"""fair-esm's extract script against EMBED_SHARD on the CPU: same file, weights and threads, in turn in one run.

Each is a process of its own, from its start to its last file, so start-up and writing count. The vectors of both are
compared too. Writes ``benchmarks/results/cpu.csv`` and prints the ratio of the fastest runs: other load on the machine
only ever adds to a run. The processor seconds beside it depend on it less.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from benchmarks.environment import RESULTS, ROOT, conditions, quantiles, write_csv

from virnucpro.fasta import read_records
from virnucpro.model.describe import describe_model

ENGINES = ("fair-esm", "virnucpro-embed")


def write_shard(fasta: Path, limit: int | None, max_length: int, path: Path) -> list[int]:
    """A shard as SPLIT_FASTA makes it, longest first, which fair-esm reads as well; returns the lengths by index."""
    sequences = [record.sequence[:max_length] for record in read_records(fasta)][:limit]
    order = sorted(range(len(sequences)), key=lambda index: (-len(sequences[index]), index))
    path.write_text("".join(f">{index}\n{sequences[index]}\n" for index in order))
    return [len(sequence) for sequence in sequences]


def command_of(engine: str, shard: Path, model: Path, folder: Path, outdir: Path, threads: int) -> list[str]:
    arguments: list[str | Path]
    if engine == "fair-esm":
        script, arguments = Path(__file__).with_name("fair_esm_extract.py"), [model, shard, outdir]
    else:
        script = ROOT / "bin" / "embed_shard.py"
        arguments = ["--shard", shard, "--model", model, "--model-json", folder / "model.json", "--outdir", outdir]
        arguments += ["--device", "cpu"]
    return [sys.executable, str(script), *map(str, arguments), "--threads", str(threads)]


def run_process(command: Sequence[str], threads: int) -> tuple[float, float]:
    """Wall seconds and processor seconds of one process and its workers."""
    paths = [str(ROOT / "bin"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths)}
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def read_vectors(engine: str, outdir: Path, count: int) -> np.ndarray:
    """(sequences, D) mean vectors in index order."""
    if engine == "fair-esm":
        results = [torch.load(outdir / f"{index}.pt", weights_only=True) for index in range(count)]
        return np.stack([next(iter(result["mean_representations"].values())).numpy() for result in results])
    table = pq.read_table(outdir / "embeddings.parquet").sort_by("unique_index")
    column = table.column("embedding").combine_chunks()
    return column.flatten().to_numpy().reshape(count, -1)


def worst_cosine(ours: np.ndarray, reference: np.ndarray) -> float:
    ours, reference = ours.astype(np.float64), reference.astype(np.float64)
    products = (ours * reference).sum(1)
    return float((products / np.linalg.norm(ours, axis=1) / np.linalg.norm(reference, axis=1)).min())


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Run both engines ``options.repeats`` times in turn; one row for each engine."""
    shard = folder / "shard-00000.fasta"
    lengths = write_shard(options.fasta, options.limit, options.max_length, shard)
    described = describe_model(options.model)
    described.write(folder / "model.json")
    seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    processor: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    vectors = {}
    for repeat in range(options.repeats):
        for engine in ENGINES:
            outdir = folder / f"{engine}-{repeat}"
            command = command_of(engine, shard, options.model.resolve(), folder, outdir, options.threads)
            wall, cpu = run_process(command, options.threads)
            seconds[engine].append(wall)
            processor[engine].append(cpu)
            vectors[engine] = read_vectors(engine, outdir, len(lengths))
            print(f"{engine:16s} {wall:8.1f} s, {cpu:8.1f} processor seconds", flush=True)
    common = conditions() | {
        "model": described.name,
        "weights_sha256": described.weights_sha256,
        "sequences": len(lengths),
        "residues": sum(lengths),
        "threads": options.threads,
        "repeats": options.repeats,
    }
    worst = worst_cosine(vectors["virnucpro-embed"], vectors["fair-esm"])
    return [
        {"engine": engine}
        | quantiles(times)
        | {
            "residues_per_second": round(sum(lengths) / min(times), 1),
            "speedup": round(min(seconds["fair-esm"]) / min(times), 3),
            "processor_seconds_min": round(min(processor[engine]), 1),
            "worst_pooled_cosine": round(worst, 9),
        }
        | common
        for engine, times in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("model", type=Path, help="checkpoint for both: fair-esm .pt or Hugging Face folder")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit", type=int, help="only the first so many records")
    parser.add_argument("--max-length", type=int, default=1022)
    parser.add_argument("--output", type=Path, default=RESULTS / "cpu.csv")
    parser.add_argument("--at-least", type=float, help="exit with 1 where the ratio is below this")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = measure(options, Path(name))
    write_csv(options.output, rows)
    ratio, worst = rows[-1]["speedup"], rows[-1]["worst_pooled_cosine"]
    print(f"virnucpro-embed is {ratio:.2f} times as fast as fair-esm's extract; worst pooled cosine {worst:.9f}")
    if options.at_least is not None and ratio < options.at_least:
        sys.exit(f"slower than {options.at_least} times fair-esm")


if __name__ == "__main__":
    main()
