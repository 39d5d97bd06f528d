"""Split against ``seqkit split2`` on the same generated file: wall and CPU seconds, peak memory, bytes per record.

    python -m benchmarks.measurements.bench_split --records 5000000 --scratch /tmp

Needs seqkit on the PATH. Both run in turn, several times; the fastest of each counts. Memory is that of the largest
single process (ru_maxrss) and of all processes together (sampled proportional set size).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from benchmarks.descriptions import random_model
from benchmarks.environment import RESULTS, ROOT, append_csv, host_conditions

#: Amino acid shares of Swiss-Prot, in per cent, in the order of ACDEFGHIKLMNPQRSTVWY.
SHARES: Final = (8.3, 1.4, 5.5, 6.7, 3.9, 7.1, 2.3, 5.9, 5.8, 9.7, 2.4, 4.1, 4.7, 3.9, 5.5, 6.6, 5.4, 6.9, 1.1, 2.9)
LOG_MEAN, LOG_DEVIATION, SHORTEST, LONGEST = 5.55, 0.72, 20, 30_000
LINE_RESIDUES: Final = 60
SAMPLE_SECONDS: Final = 0.05
SPLIT: Final = "import sys; from virnucpro.cli.split import main; sys.exit(main())"


@dataclass
class Run:
    """One run of one program; memory in MiB."""

    program: str
    wall_seconds: float
    cpu_seconds: float
    largest_process_mib: float
    all_processes_mib: float
    written_bytes: int = 0


def write_input(path: Path, records: int, duplicates: float, seed: int = 1) -> None:
    """Write proteins with log-normal lengths (mean about 340), a share of them duplicates, in random order."""
    generator = np.random.default_rng(seed)
    shares = np.array(SHARES) / sum(SHARES)
    pool = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", np.uint8)[generator.choice(20, 1 << 26, p=shares)].tobytes()
    distinct = max(records - int(records * duplicates), 1)
    lengths = generator.lognormal(LOG_MEAN, LOG_DEVIATION, distinct).clip(SHORTEST, LONGEST).astype(int)
    starts = generator.integers(0, len(pool) - LONGEST, distinct)
    order = np.concatenate([np.arange(distinct), generator.integers(0, distinct, records - distinct)])
    generator.shuffle(order)
    with path.open("wb", buffering=1 << 22) as stream:
        for number, which in enumerate(order.tolist()):
            residues = pool[starts[which] : starts[which] + lengths[which]]
            lines = [residues[i : i + LINE_RESIDUES] for i in range(0, len(residues), LINE_RESIDUES)]
            stream.write(b">P%09d capsid protein %d\n%b\n" % (number, which % 977, b"\n".join(lines)))


def measure(program: str, command: Sequence[str | Path]) -> Run:
    """Run a command to its end and sample the memory of it and its children."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "bin")}
    begun = time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    peak = [0]
    sampler = threading.Thread(target=_sample, args=(process.pid, peak), daemon=True)
    sampler.start()
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{program} ended with {process.returncode}: {errors.decode()}")
    sampler.join()
    return Run(program, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, peak[0] / 2**20)


def _sample(pid: int, peak: list[int]) -> None:
    while True:
        try:
            root = psutil.Process(pid)
            if root.status() == psutil.STATUS_ZOMBIE:
                return
            family = [root, *root.children(recursive=True)]
            total = 0
            for process in family:
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            peak[0] = max(peak[0], total)
        except psutil.NoSuchProcess:
            return
        time.sleep(SAMPLE_SECONDS)


def compare(scratch: Path, records: int, duplicates: float, shards: int, repeats: int) -> tuple[Run, Run, int]:
    """Run both on a file of ``records``; return the best of each and the size of the file."""
    source, model = scratch / "input.fasta", scratch / "model.json"
    # In a process of its own: what this one has held would count as memory of every program it starts.
    generator = multiprocessing.get_context("spawn").Process(target=write_input, args=(source, records, duplicates))
    generator.start()
    generator.join()
    if generator.exitcode:
        raise RuntimeError("the input could not be written")
    random_model(layers=33, embed_dim=1280, heads=20).write(model)
    ours: list[Run] = []
    peers: list[Run] = []
    for _ in range(repeats):
        peer_out, our_out = scratch / "seqkit", scratch / "split"
        peers.append(measure("seqkit split2", ["seqkit", "split2", "-p", str(shards), "-O", peer_out, source]))
        peers[-1].written_bytes = remove(peer_out)
        arguments: list[str | Path] = ["--model-json", model, "--outdir", our_out, "--shards-at-least", str(shards)]
        arguments += ["--shard-residues", "400000000", source]
        ours.append(measure("split_fasta.py", [sys.executable, "-c", SPLIT, *arguments]))
        ours[-1].written_bytes = remove(our_out)
    size = source.stat().st_size
    source.unlink()
    return min(ours, key=lambda run: run.wall_seconds), min(peers, key=lambda run: run.wall_seconds), size


def remove(folder: Path) -> int:
    """Remove a folder; return how many bytes its files held."""
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder)
    return held


def main(argv: Sequence[str] | None = None) -> int:
    """Measure at two sizes, print and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=5_000_000)
    parser.add_argument("--duplicates", type=float, default=0.5)
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args(argv)
    rows: list[dict[str, object]] = []
    best: list[Run] = []
    sizes = (options.records // 2, options.records)
    for records in sizes:
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            # Shards of the same size for both, as in a run: they are cut by residues.
            shards = max(options.shards * records // options.records, 1)
            ours, peer, size = compare(Path(scratch), records, options.duplicates, shards, options.repeats)
        ratio = peer.wall_seconds / ours.wall_seconds
        best.append(ours)
        for run in (ours, peer):
            rows.append({**conditions(), "records": records, "input_bytes": size, **asdict(run), "speed_ratio": ratio})
            print(
                f"{records} records, {size / 1e9:.2f} GB, {run.program}: {run.wall_seconds:.2f} s wall, "
                f"{run.cpu_seconds:.2f} s CPU, peak {run.largest_process_mib:.0f} MiB in one process, "
                f"{run.all_processes_mib:.0f} MiB in all"
            )
        print(f"speed of split_fasta.py over seqkit split2: {ratio:.2f}")
    for what in ("largest_process_mib", "all_processes_mib"):
        growth = (getattr(best[1], what) - getattr(best[0], what)) * 2**20 / (sizes[1] - sizes[0])
        print(f"{what}: {growth:.1f} bytes per further record")
    append_csv(
        RESULTS / "split.csv", [{k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    )
    return 0


def conditions() -> dict[str, object]:
    """Where and with what this was measured."""
    seqkit = subprocess.run(["seqkit", "version"], capture_output=True, text=True).stdout
    versions = {"python": platform.python_version(), "numpy": np.__version__, "seqkit": seqkit.strip()}
    return host_conditions() | versions


if __name__ == "__main__":
    sys.exit(main())
