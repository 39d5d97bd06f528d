"""Time and memory of one protein of titin's length in the three modes of ``--long_sequences``.

The protein is made of a FASTA's sequences end to end: how long a forward pass takes does not depend on the letters,
but for windows that repeat, of which there are none. Each mode runs in a process of its own, first a short protein, so
that kernels are compiled and memory is there, then the long one, of whose repeats the fastest counts. Memory is the
device's peak, or on a CPU the process's. Writes ``benchmarks/results/long-protein-<model>-<device>.csv``; a mode that
does not fit says so in its row.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import torch
from benchmarks.environment import RESULTS, conditions, write_csv
from benchmarks.inputs import read_sequences

from virnucpro import Embedder
from virnucpro.config import LONG_SEQUENCES
from virnucpro.machine import peak_resident_bytes

TITIN: Final = 34_350


def long_protein(fasta: Path, residues: int) -> str:
    """The sequences of a file end to end, so many residues of them."""
    joined = "".join(read_sequences(fasta, residues))
    if len(joined) < residues:
        raise SystemExit(f"{fasta}: {len(joined):,} residues, but {residues:,} are asked for")
    return joined[:residues]


def measure(options: argparse.Namespace) -> dict[str, object]:
    """One mode, in this process."""
    sequence = long_protein(options.fasta, options.residues)
    seconds: list[float] = []
    with Embedder(
        model=str(options.checkpoint),
        device=options.device,
        precision=options.precision,
        long_sequences=options.mode,
        progress=False,
    ) as embedder:
        embedder.embed([sequence[:2000]])
        on_gpu = options.device == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(options.repeats):
            begun = time.perf_counter()
            embedder.embed([sequence])
            seconds.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_resident_bytes()
    return {"seconds": min(seconds), "peak_memory_bytes": peak, "error": ""}


def measured_apart(mode: str, arguments: list[str]) -> dict[str, object]:
    """One mode, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.measurements.bench_long_protein", *arguments, "--mode", mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"seconds": "", "peak_memory_bytes": "", "error": (done.stderr.splitlines() or ["killed"])[-1]}
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--residues", type=int, default=TITIN)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--mode", choices=LONG_SEQUENCES)
    options = parser.parse_args()
    if options.mode:
        print(json.dumps(measure(options)))
        return
    about = {
        "model": options.checkpoint.stem,
        "data": options.fasta.name,
        "residues": options.residues,
        "repeats": options.repeats,
        "precision": "fp32" if options.device == "cpu" else options.precision,
    }
    rows = []
    for mode in LONG_SEQUENCES:
        rows.append({"mode": mode, **measured_apart(mode, sys.argv[1:]), **about, **conditions()})
        print(rows[-1], flush=True)
    write_csv(RESULTS / f"long-protein-{options.checkpoint.stem}-{options.device}.csv", rows)


if __name__ == "__main__":
    main()
