"""What vectors of single residues cost a whole run on a GPU: EMBED_SHARD with and without them, and their merge.

Random sequences of proteins' lengths go through the pipeline's own programs, in one folder and on one card: a short
warm-up (which fills the kernel cache), pooled vectors alone, pooled vectors and residues, the merge of these and the
proof of it. Appends to ``benchmarks/results/residues-gpu.csv``. For example

    python -m benchmarks.measurements.bench_residues_gpu --checkpoint m650.pt
    python -m benchmarks.measurements.bench_residues_gpu --checkpoint m3b.pt --size 3B --layers=all --tokens 50000

A checkpoint that is not there is made, of random weights. The first takes about 100 s on an H100, and 20 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from benchmarks.environment import RESULTS, ROOT, append_csv, conditions
from benchmarks.inputs import SHAPES
from benchmarks.make_checkpoint import write_checkpoint

#: Lengths of proteins: a gamma distribution of this shape and mean, cut as the pipeline cuts.
LENGTH_SHAPE, LENGTH_MEAN, LONGEST = 2.0, 440, 1022
#: What is written at once to learn the disk's rate, and how often.
BLOCK, BLOCKS = bytes(64 << 20), 64


def write_proteins(path: Path, tokens: int) -> int:
    """Random sequences until they have so many tokens; returns how many there are."""
    rng, letters, count, written = np.random.default_rng(0), np.array(list("ACDEFGHIKLMNPQRSTVWY")), 0, 0
    with path.open("w") as handle:
        while written < tokens:
            length = int(np.clip(rng.gamma(LENGTH_SHAPE, LENGTH_MEAN / LENGTH_SHAPE), 30, LONGEST))
            handle.write(f">p{count}\n{''.join(rng.choice(letters, length))}\n")
            count, written = count + 1, written + length + 2
    return count


def run(program: str, *arguments: object) -> dict[str, float]:
    """Run a program of ``bin/``; its seconds and its peak resident GiB."""
    command = [sys.executable, str(ROOT / "bin" / f"{program}.py"), *map(str, arguments)]
    begun = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{program} ended with {child.returncode}")
    return {"seconds": time.perf_counter() - begun, "peak_rss_gib": used.ru_maxrss / 2**20}


def disk_rate(folder: Path) -> float:
    """MB/s of plain writing, until all of it is on the disk."""
    path = folder / "disk"
    begun = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(BLOCKS):
            file.write(BLOCK)
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begun
    path.unlink()
    return len(BLOCK) * BLOCKS / seconds / 1e6


def embed(name: str, shard: Path, options: argparse.Namespace, *more: object) -> dict[str, Any]:
    """EMBED_SHARD in a process of its own: its rates, its memory, and what it wrote."""
    outdir = options.folder / name / shard.stem
    model = ("--model", options.checkpoint, "--model-json", options.folder / "model.json")
    asked = (f"--layers={options.layers}", "--precision", options.precision, "--device", options.device)
    measured = run("embed_shard", "--shard", shard, *model, "--outdir", outdir, *asked, *more)
    summary = json.loads((outdir / "summary.json").read_text())
    files = list((outdir / "residues").glob("*.parquet"))
    return {
        "step": name,
        **measured,
        "process_tokens_per_second": summary["tokens"] / measured["seconds"],
        "tokens_per_second": summary["tokens_per_second"],
        "token_budget": summary["token_budget"],
        "batches": summary["batches"],
        "retries": sum(pq.read_table(outdir / "batches.parquet")["retries"].to_pylist()),
        "write_seconds": summary["write_seconds"],
        "residues_gb": sum(path.stat().st_size for path in files) / 1e9,
    }


def split(options: argparse.Namespace, tokens: int, name: str) -> Path:
    """One shard of random proteins, in a folder of its own."""
    folder = options.folder / name
    folder.mkdir(parents=True)
    write_proteins(folder / "proteins.fasta", tokens)
    facts = ("--model-json", options.folder / "model.json", f"--layers={options.layers}", "--per-residue")
    whole = ("--shard-residues", 10**9, "--precision", options.precision)
    run("split_fasta", folder / "proteins.fasta", "--outdir", folder, *facts, *whole)
    return Path(folder / "shards" / "shard-00000.fasta")


def merge(options: argparse.Namespace, inputs: Path, shard: Path) -> list[dict[str, Any]]:
    """MERGE_EMBEDDINGS of the one shard, and the proof of its results."""
    results = options.folder / "results"
    files = {"manifest": "manifest.parquet", "rejected": "rejected.tsv", "split-summary": "split_summary.json"}
    named = [f"--{name}={inputs / file}" for name, file in files.items()]
    merged = run("merge_embeddings", *named, "--model-json", options.folder / "model.json", "--outdir", results, shard)
    size = sum(path.stat().st_size for path in (results / "residues").iterdir()) / 1e9
    return [
        {"step": "merge", **merged, "residues_gb": size},
        {"step": "verify", **run("verify", results), "residues_gb": size},
    ]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All steps in turn."""
    if not options.checkpoint.exists():
        write_checkpoint(options.size, options.checkpoint)
    run("fetch_model", "--model", options.checkpoint, "--outdir", options.folder)
    inputs = options.folder / "split"
    shard = split(options, options.tokens, "split")
    embed("warm-up", split(options, options.tokens // 20, "split-warm-up"), options)
    rows = [embed("pooled", shard, options), embed("residues", shard, options, "--per-residue")]
    rows += merge(options, inputs, options.folder / "residues" / shard.stem)
    rate = disk_rate(options.folder)
    pooled = rows[0]
    for row in rows[:2]:
        for name in ("process_tokens_per_second", "tokens_per_second"):
            row[f"share_of_pooled_{name}"] = row[name] / pooled[name]
    return [{**row, "disk_mb_per_second": rate} for row in rows]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A line for each step."""
    for row in rows:
        figures = {name: value for name, value in row.items() if name not in ("step", *conditions())}
        print(row["step"], *(f"{name}={value:,.4g}" for name, value in figures.items() if value != ""), flush=True)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="made, of random weights, where it is not there")
    parser.add_argument("--size", choices=SHAPES, default="650M")
    parser.add_argument("--layers", default="-1", help="as for embed_shard.py, or all")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=3_900_000)
    parser.add_argument("--folder", type=Path, default=Path("residues-gpu"), help="emptied before and after")
    options = parser.parse_args()
    if options.layers == "all":
        options.layers = ",".join(map(str, range(SHAPES[options.size][0] + 1)))
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    try:
        rows = measure(options)
    finally:
        shutil.rmtree(options.folder)
    show(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    about = {"model": options.size, "layers": len(options.layers.split(",")), "asked_tokens": options.tokens}
    append_csv(
        RESULTS / "residues-gpu.csv", [{**about, **{n: row.get(n, "") for n in names}, **conditions()} for row in rows]
    )


if __name__ == "__main__":
    main()
