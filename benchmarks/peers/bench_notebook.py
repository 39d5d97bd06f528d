"""Answers in a notebook: one warm ``Embedder.embed`` against the forward passes of fair-esm's own loop, in turn.

fair-esm gets the same sequences in batches as its extract script cuts them, tokenised before the clock starts: its
seconds are those of the model alone, ours the whole call. Random proteins of given lengths, each call others.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from benchmarks.environment import RESULTS, conditions, quantiles, write_csv
from benchmarks.peers.fair_esm_extract import load_reference

from virnucpro import Embedder

RESIDUES = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
TOKENS_PER_BATCH = 4096


def peptides(count: int, shortest: int, longest: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(shortest, longest, count, endpoint=True)
    return ["".join(generator.choice(RESIDUES, length)) for length in lengths]


class FairEsm:
    """The peer: batches in order of length, all of the model's outputs."""

    def __init__(self, model: Path, device: torch.device) -> None:
        self.model, alphabet = load_reference(model)
        self.model.to(device)
        self.device = device
        self.convert = alphabet.get_batch_converter()

    def seconds(self, sequences: Sequence[str]) -> float:
        batches: list[list[tuple[str, str]]] = [[]]
        for sequence in sorted(sequences, key=len):
            if (len(batches[-1]) + 1) * (len(sequence) + 2) > TOKENS_PER_BATCH:
                batches.append([])
            batches[-1].append(("", sequence))
        tokens = [self.convert(batch)[2].to(self.device) for batch in batches]
        begin = time.perf_counter()
        with torch.no_grad():
            for each in tokens:
                self.model(each, repr_layers=[self.model.num_layers])["representations"]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--sequences", type=int, default=100)
    parser.add_argument("--shortest", type=int, default=8)
    parser.add_argument("--longest", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS / "notebook.csv")
    parser.add_argument("--at-most", type=float, help="exit with 1 where our time over fair-esm's is above this")
    options = parser.parse_args()
    peer = FairEsm(options.model, torch.device(options.device))
    times: dict[str, list[float]] = {"fair-esm, forward passes": [], "virnucpro, whole call": []}
    with Embedder(options.model, device=options.device) as embedder:
        for repeat in range(-1, options.repeats):
            sequences = peptides(options.sequences, options.shortest, options.longest, repeat + 1)
            begin = time.perf_counter()
            embedder.embed(sequences)
            whole = time.perf_counter() - begin
            pair = (peer.seconds(sequences), whole)
            for held, seconds in zip(times.values(), pair if repeat >= 0 else (), strict=False):
                held.append(seconds)
    theirs, ours = (float(np.median(seconds)) for seconds in times.values())
    facts = {"sequences": options.sequences, "shortest": options.shortest, "longest": options.longest}
    common = {**facts, "threads": torch.get_num_threads(), "cores": os.cpu_count(), **conditions()}
    write_csv(options.output, [{"engine": name, **quantiles(held), **common} for name, held in times.items()])
    print(f"a warm call takes {ours:.4f} s, fair-esm's forward passes {theirs:.4f} s: {ours / theirs:.2f} times")
    if options.at_most is not None and ours > options.at_most * theirs:
        sys.exit(f"slower than {options.at_most} times fair-esm's forward passes")


if __name__ == "__main__":
    main()
