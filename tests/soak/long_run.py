"""Shards embedded one after another in one process, with faults by a seed: nothing that they use may grow.

``python -m soak.long_run MINUTES [SEED]`` looks after each shard at memory, descriptors, threads, processes and shared
memory, tells what it saw, keeps it in soak.json beside this, and ends with 1 where something grew.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
from pipeline.models import random_sequences, save_fair_esm, small_esm2
from running_processes import wait_until
from soak.shard_faults import FAULTS, Bench, command_of

from virnucpro.model.describe import describe_model

RECORD = Path(__file__).with_name("soak.json")
SEED = 16
#: Sequences of a shard.
SEQUENCES = 200
#: The last quarter may hold this much more than the second: what allocators keep, in MiB and as a share.
RSS_MIB, RSS_SHARE = 8.0, 0.03
#: Of ten shards so many are embedded with loader processes, which take seconds to start.
WITH_WORKERS = 1
#: Seconds after which no process and no shared file may be left of a shard.
GONE_WITHIN = 10
_SHARED_FILE = re.compile(r"torch_(\d+)_")


def shared_files() -> set[str]:
    """Files in shared memory that torch made for this process, or for one that is gone."""
    found = {path.name: _SHARED_FILE.match(path.name) for path in Path("/dev/shm").iterdir()}
    makers = {name: int(match[1]) for name, match in found.items() if match}
    return {name for name, pid in makers.items() if pid == os.getpid() or not psutil.pid_exists(pid)}


def children() -> list[psutil.Process]:
    """Processes that this one started, but for the one that looks after semaphores."""
    multiprocessing.active_children()  # takes leave of those that have ended
    return [child for child in psutil.Process().children() if "resource_tracker" not in command_of(child)]


@dataclass(frozen=True)
class Use:
    """What the process holds."""

    rss_mib: float
    shared_mib: float
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> Use:
        gc.collect()
        process = psutil.Process()
        memory = process.memory_info()
        return cls(memory.rss / 2**20, memory.shared / 2**20, process.num_fds(), process.num_threads())


class Soak:
    """Embeds shards in a folder, and keeps what was used after each.

    Raises:
        AssertionError: a fault ended otherwise than it may, left something, or a vector is not the true one.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        self.ends: Counter[str] = Counter()
        self.used: list[Use] = []
        (folder / "kept").mkdir()
        save_fair_esm(small_esm2(), folder / "kept" / "small.pt")
        describe_model(folder / "kept" / "small.pt").write(folder / "kept" / "model.json")
        sequences = enumerate(random_sequences(SEQUENCES, seed, longest=100))
        (folder / "kept" / "shard-00000.fasta").write_text("".join(f">{i}\n{each}\n" for i, each in sequences))
        self.foreign = shared_files()
        self.truth: np.ndarray | None = None
        for workers in (None, 2):
            self.embed("none", workers)

    def run(self, enough: Callable[[int], bool]) -> None:
        """Embed shards until their number is enough; by turns with a fault and, now and then, with workers."""
        while not enough(len(self.used)):
            name = self.rng.choice([*FAULTS])
            workers = 2 if name == "worker killed" or self.rng.random() < WITH_WORKERS / 10 else None
            self.embed(name, workers)
            self.used.append(Use.now())

    def embed(self, name: str, workers: int | None) -> None:
        bench = Bench(self.folder / "now", workers, self.rng)
        shutil.copytree(self.folder / "kept", bench.folder)
        codes, fault = FAULTS[name]
        with fault(bench):
            code, told = bench.embed()
        assert code in codes, f"{name} ended with {code}, shard {len(self.used)}: {told}"
        self.ends[f"{name}: {code}"] += 1
        left = {path.name for path in bench.folder.iterdir()} - {"small.pt", "model.json", "shard-00000.fasta"}
        assert wait_until(lambda: not children() and not shared_files() - self.foreign, GONE_WITHIN), (
            f"{name} left more"
        )
        assert left == ({"out"} if code == 0 else set()), f"{name} left {left}"
        if code == 0:
            column = pq.read_table(bench.folder / "out" / "embeddings.parquet").sort_by("unique_index")["embedding"]
            found = np.array(column.to_pylist())
            self.truth = found if self.truth is None else self.truth
            np.testing.assert_allclose(found, self.truth, rtol=1e-4, atol=1e-5)
        shutil.rmtree(bench.folder)


def growth(used: Sequence[Use]) -> list[str]:
    """What the last quarter of the shards holds more of than the second; the first is for warming up."""
    quarter = len(used) // 4
    early, late = used[quarter : 2 * quarter], used[-quarter:]
    grown = []
    for name in ("rss_mib", "shared_mib"):
        before, now = (statistics.median(getattr(each, name) for each in part) for part in (early, late))
        if now > before * (1 + RSS_SHARE) + RSS_MIB:
            grown.append(f"{name} from {before:.0f} to {now:.0f}")
    for name in ("descriptors", "threads"):
        before, now = (statistics.median(getattr(each, name) for each in part) for part in (early, late))
        if now > before:
            grown.append(f"{name} from {before:g} to {now:g}")
    return grown


def figures(used: Sequence[Use]) -> dict[str, list[float]]:
    """Medians of each quarter."""
    quarter = max(len(used) // 4, 1)
    parts = [used[i * quarter : (i + 1) * quarter] for i in range(4)]
    names = list(asdict(used[0]))
    return {name: [round(statistics.median(getattr(u, name) for u in part), 1) for part in parts] for name in names}


def main() -> int:
    minutes, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SEED
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="virnucpro-soak-") as folder:
        soak = Soak(Path(folder), seed)
        soak.run(lambda _: time.monotonic() > end)
    grown = growth(soak.used)
    seen = {"minutes": minutes, "seed": seed, "shards": len(soak.used), "ends": dict(sorted(soak.ends.items()))}
    seen |= {"quarters": figures(soak.used), "grown": grown}
    RECORD.write_text(json.dumps(seen, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(seen, indent=1))
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
