"""The runs of bench_gpus.py: their inputs, and nextflow started so that they differ in input and GPUs only."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT

from virnucpro.config import DEFAULT_MAX_LENGTH
from virnucpro.fasta import read_records

BEGUN = time.monotonic()
#: In the folder of a run that ended well: what it was.
FINISHED = "run.json"


def say(text: str) -> None:
    """Print with the seconds since the beginning."""
    print(f"[{time.monotonic() - BEGUN:6.1f} s] {text}", flush=True)


@dataclass(frozen=True)
class Plan:
    """A run to make: GPUs, and copies of the input for each."""

    gpus: int
    copies: int

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Of GPUS:COPIES."""
        gpus, _, copies = text.partition(":")
        return cls(int(gpus), int(copies))


@dataclass(frozen=True)
class Input:
    """A FASTA file of ``records``, to be cut into ``shards`` of ``shard_residues``."""

    fasta: Path
    records: int
    shards: int
    shard_residues: int


@dataclass(frozen=True)
class Run:
    """A finished run: where it was launched, GPUs allowed, unix seconds of its begin, wall seconds, records."""

    name: str
    folder: Path
    gpus: int
    begun: float
    seconds: float
    records: int

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def metrics(self) -> Path:
        return self.results / "metrics"

    @property
    def trace(self) -> Path:
        return self.results / "pipeline_info" / "trace.txt"

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.metrics / "run_summary.json").read_text()))

    def keep(self) -> None:
        """Note that it ended, for ``kept``."""
        (self.folder / FINISHED).write_text(json.dumps(asdict(self) | {"folder": str(self.folder)}))

    @classmethod
    def kept(cls, folder: Path) -> Run | None:
        """The run that ended in a folder, if one did."""
        if not (folder / FINISHED).is_file():
            return None
        said = json.loads((folder / FINISHED).read_text())
        return cls(**said | {"folder": Path(said["folder"])})

    def shard_text(self, shard: int) -> bytes:
        (path,) = self.folder.glob(f"work/*/*/shards/shard-{shard:05d}.fasta")
        return path.read_bytes()


def repeat_fasta(fasta: Path, copies: int, shards: int, out: Path) -> Input:
    """Write every record ``copies`` times, copy after copy, with fresh ids; each shard gets whole copies.

    A file of fewer copies has the first records of one of more.
    """
    records = list(read_records(fasta))
    kept = sum(min(len(record.sequence), DEFAULT_MAX_LENGTH) for record in records)
    with out.open("w") as handle:
        for copy in range(copies):
            handle.writelines(f">{record.id}.{copy}\n{record.sequence}\n" for record in records)
    return Input(out, copies * len(records), shards, kept * copies // shards)


class Pipeline:
    """Starts runs that differ in input and GPUs only, each in a folder of its own, and none that ended there before."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self._scratch = scratch
        self._nextflow = ["nextflow", *(["-c", str(options.config.resolve())] if options.config else [])]
        self._shared = ["--model", str(options.model.resolve()), "--precision", options.precision]
        self._shared += ["--token_budget", str(options.token_budget), "--dedup", "false", "--report", "false"]
        # Tasks run under the Python that runs this.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {"NXF_OFFLINE": "true", "NXF_DISABLE_CHECK_LATEST": "true", **os.environ, "PATH": path}

    def run(self, name: str, given: Input, gpus: int) -> Run:
        """Run to the end, unless it did before."""
        kept = self.kept(name)
        if kept is not None:
            return kept
        run, process = self.start(name, given, gpus)
        return self.finish(run, process)

    def kept(self, name: str) -> Run | None:
        """What ended before."""
        kept = Run.kept(self._scratch / name)
        if kept is not None:
            say(f"{name}: ran before, {kept.seconds:.1f} s")
        return kept

    def start(self, name: str, given: Input, gpus: int) -> tuple[Run, subprocess.Popen[bytes]]:
        folder = self._scratch / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [*self._nextflow, "run", str(ROOT / "main.nf"), "-ansi-log", "false", "--gpus", str(gpus)]
        command += ["--input", str(given.fasta), "--shard_residues", str(given.shard_residues), *self._shared]
        say(f"{name}: {given.records:,} records in {given.shards} shards, --gpus {gpus}")
        begun = time.time()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=self._environment)
        return Run(name, folder, gpus, begun, 0.0, given.records), process

    def finish(self, run: Run, process: subprocess.Popen[bytes]) -> Run:
        """Wait for the end.

        Raises:
            RuntimeError: the run failed; with the last that Nextflow said.
        """
        code = process.wait()
        seconds = time.time() - run.begun
        say(f"{run.name}: ended with {code} after {seconds:.1f} s")
        if code:
            raise RuntimeError((run.folder / "log").read_text(errors="replace")[-4000:])
        finished = replace(run, seconds=seconds)
        finished.keep()
        return finished
