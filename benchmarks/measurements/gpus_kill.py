"""Kills one of the embed_shard.py processes of a running pipeline, once all of them have written vectors."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from benchmarks.measurements.gpus_checks import Task

LOOK_SECONDS = 0.25
#: Share of its vectors that each task has written at the kill; the longest sequences come first.
WRITTEN_SHARE = 0.05


@dataclass(frozen=True)
class Killed:
    """A killed try: its process's start and the kill in unix seconds, the GPU it was given, the vectors it had written,
    and the shards that were at work beside it."""

    shard: int
    device: str
    started: float
    at: float
    rows: int
    others: tuple[int, ...]

    def keep(self, path: Path) -> None:
        """Write it for ``kept``."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def kept(cls, path: Path) -> Killed:
        """What ``keep`` wrote."""
        said = json.loads(path.read_text())
        return cls(**said | {"others": tuple(said["others"])})

    def task(self, host: str) -> Task:
        """As a task of its device, named as the metrics name it."""
        return Task(self.shard, f"{host} {self.device}", self.started, self.at)


def kill_one(nextflow: subprocess.Popen[bytes], shards: int, dim: int) -> Killed | None:
    """Wait until ``shards`` tasks have written enough of their vectors of ``dim``, then kill that of the first shard.

    Returns:
        What was killed; None where the run ended before.
    """
    while nextflow.poll() is None:
        working = embed_processes(nextflow.pid)
        written = {shard: vectors_written(process, shard, dim) for shard, process in working.items()}
        if len(working) == shards and all(rows >= WRITTEN_SHARE * most > 0 for rows, most in written.values()):
            shard = min(working)
            process = working[shard]
            try:
                started, device = process.create_time(), process.environ().get("CUDA_VISIBLE_DEVICES", "CPU")
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                return None
            others = tuple(sorted(set(working) - {shard}))
            return Killed(shard, device, started, time.time(), written[shard][0], others)
        time.sleep(LOOK_SECONDS)
    return None


def embed_processes(nextflow: int) -> dict[int, psutil.Process]:
    """The main processes of running EMBED_SHARD tasks by shard, without their shells and loader processes."""
    found = {}
    try:
        descendants = psutil.Process(nextflow).children(recursive=True)
    except psutil.NoSuchProcess:
        return {}
    for process in descendants:
        try:
            shard = shard_of(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if shard is not None:
            found[shard] = process
    return found


def shard_of(command: list[str]) -> int | None:
    """The shard that a command line embeds, or None where it is no Python that runs embed_shard.py."""
    if len(command) < 2 or not Path(command[0]).name.startswith("python") or "--shard" not in command[2:-1]:
        return None
    if Path(command[1]).name != "embed_shard.py":
        return None
    return int(Path(command[command.index("--shard") + 1]).stem.rpartition("-")[2])


def vectors_written(process: psutil.Process, shard: int, dim: int) -> tuple[int, int]:
    """Rows of the writer's scratch file that hold a vector, and rows in all; zeros where there is no such file."""
    try:
        (scratch,) = Path(process.cwd()).glob(f".shard-{shard:05d}.partial/.embedding.scratch")
        vectors = np.memmap(scratch, np.float32, "r").reshape(-1, dim)
    except (psutil.NoSuchProcess, OSError, ValueError):
        return 0, 0
    return int(np.count_nonzero(vectors[:, 0])), len(vectors)
