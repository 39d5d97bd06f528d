"""A shard, embedded in this process as its program does it, and faults that happen to it on the way."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import psutil
import torch
from one_bit import flip_a_bit

from virnucpro.config import EmbedConfig
from virnucpro.errors import run_reporting_errors
from virnucpro.output.writer import ShardWriter
from virnucpro.pipeline.embed import embed_shard
from virnucpro.pipeline.engine import Engine


def command_of(process: psutil.Process) -> str:
    """What was called, or nothing of a process that has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@dataclass
class Bench:
    """The files of one shard, made anew for each: faults change them."""

    folder: Path
    workers: int | None
    rng: random.Random

    @property
    def shard(self) -> Path:
        return self.folder / "shard-00000.fasta"

    @property
    def weights(self) -> Path:
        return self.folder / "small.pt"

    def embed(self) -> tuple[int, str]:
        """Embed the shard; returns the exit code that the program would end with, and what it would say."""
        config = EmbedConfig(
            shard=self.shard,
            model=self.weights,
            model_json=self.folder / "model.json",
            outdir=self.folder / "out",
            device="cpu",
            token_budget=1000,
            workers=self.workers,
            threads=1,
        )
        with contextlib.redirect_stderr(io.StringIO()) as told:
            return run_reporting_errors("soak", lambda: embed_shard(config) and None), told.getvalue()


Fault = Callable[[Bench], contextlib.AbstractContextManager[object]]


@contextlib.contextmanager
def raising(owner: type, name: str, error: BaseException, call: int) -> Iterator[None]:
    """Have a method raise once, at that call."""
    real, calls = getattr(owner, name), itertools.count(1)

    def faulty(*arguments: object, **named: object) -> object:
        if next(calls) == call:
            raise error
        return real(*arguments, **named)

    with mock.patch.object(owner, name, faulty):
        yield


@contextlib.contextmanager
def changing(path: Path, change: Callable[[Path], object]) -> Iterator[None]:
    """Have a file change at the third batch."""
    real, calls = Engine.forward, itertools.count(1)

    def forward(*arguments: object, **named: object) -> object:
        if next(calls) == 3:
            change(path)
        return real(*arguments, **named)  # type: ignore[arg-type]

    with mock.patch.object(Engine, "forward", forward):
        yield


@contextlib.contextmanager
def killing(bench: Bench) -> Iterator[None]:
    """Kill a loader's worker, if there is one, at a random moment."""
    done = threading.Event()

    def kill() -> None:
        while not done.wait(bench.rng.uniform(0.2, 4)):
            for child in psutil.Process().children():
                if "spawn_main" in command_of(child):
                    with contextlib.suppress(psutil.Error):
                        child.kill()
                    return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        done.set()
        killer.join()


@contextlib.contextmanager
def after(change: Callable[[], object]) -> Iterator[None]:
    """Do something to the files first."""
    change()
    yield


#: Name -> the exit codes with which it may end, and the fault.
FAULTS: dict[str, tuple[Sequence[int], Fault]] = {
    "none": ((0,), lambda _: contextlib.nullcontext()),
    "full disk": (
        (74,),
        lambda bench: raising(ShardWriter, "write", OSError(errno.ENOSPC, "No space left"), bench.rng.randrange(1, 6)),
    ),
    "no memory": ((75,), lambda bench: raising(ShardWriter, "write", MemoryError(), bench.rng.randrange(1, 6))),
    "no memory on the device": (
        (0,),
        lambda bench: raising(
            Engine, "forward", torch.OutOfMemoryError("CUDA out of memory"), bench.rng.randrange(1, 6)
        ),
    ),
    "Ctrl-C": ((130,), lambda bench: raising(Engine, "forward", KeyboardInterrupt(), bench.rng.randrange(1, 6))),
    "weights changed while they are used": ((69,), lambda bench: changing(bench.weights, flip_a_bit)),
    "shard damaged": ((65,), lambda bench: after(lambda: bench.shard.write_bytes(b"\0" + bench.shard.read_bytes()))),
    "shard deleted": ((66,), lambda bench: after(bench.shard.unlink)),
    "worker killed": ((0, 75), killing),
}
