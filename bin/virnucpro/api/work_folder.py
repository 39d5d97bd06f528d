"""The folder of a local run's unfinished work, beside its results; the same run, one at a time, goes on in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from virnucpro import __version__, locks
from virnucpro.api.config import RunConfig
from virnucpro.errors import UsageError
from virnucpro.output.atomic import publish_directory, refuse_full, remove_tree
from virnucpro.output.files import MANIFEST_FILE

_FACTS_FILE: Final = "run.json"
#: What a run that goes on may be told otherwise: no finished shard would be another.
_MAY_CHANGE: Final = frozenset(
    {"cpus", "gpus", "model_cache", "neighbours", "outdir", "provenance", "reference", "report", "token_budget"}
)
#: Beside ``RESULTS``, once these are whole.
_DONE_FILE: Final = "done"
RESULTS: Final = "results"


@contextmanager
def work_folder(config: RunConfig, device: str, weights_sha256: str) -> Iterator[Path]:
    """The folder of what is not finished: a new one, or that of an interrupted run of the same facts."""
    work, lock = _beside(config.outdir)
    work.parent.mkdir(parents=True, exist_ok=True)
    with _locked(config.outdir, lock):
        # A run that had it until now may have finished.
        refuse_full(config.outdir)
        facts = _facts(config, device, weights_sha256)
        if not (work / _FACTS_FILE).exists() or (work / _FACTS_FILE).read_text(errors="replace") != facts:
            remove_tree(work)
            work.mkdir()
            (work / _FACTS_FILE).write_text(facts)
        yield work


def publish(work: Path, outdir: Path) -> None:
    """Give the results their place, and remove the folder that they were made in."""
    (work / _DONE_FILE).touch()
    publish_directory(work / RESULTS, outdir)
    remove_tree(work)


def clear_published(outdir: Path) -> None:
    """Remove what a run left beside its results that was killed after it had published them."""
    if outdir.resolve() == outdir.resolve().parent:
        return  # the root of the file system has nothing beside it
    work, lock = _beside(outdir)
    if (work / _DONE_FILE).exists() and not (work / RESULTS).exists():
        with _locked(outdir, lock):
            remove_tree(work)


def _beside(outdir: Path) -> tuple[Path, Path]:
    """The folder of what is not finished, and the file that a run locks."""
    final = outdir.resolve()
    return final.with_name(f".{final.name}.run"), final.with_name(f".{final.name}.lock")


@contextmanager
def _locked(outdir: Path, lock: Path) -> Iterator[None]:
    """Keep other runs away, where the file system has locks.

    Raises:
        UsageError: another run is at work.
    """
    with lock.open("w") as file:
        try:
            mine = locks.take(file)
        except OSError:
            mine = True
        if not mine:
            raise UsageError(f"{outdir}: another run is at work on it; wait, or name another --outdir")
        yield
        lock.unlink()


def _facts(config: RunConfig, device: str, weights_sha256: str) -> str:
    """What two runs have in common if one can go on where the other ended; input from a pipe never has."""
    earlier = [path / MANIFEST_FILE for path in config.reuse]
    files = [path.absolute() for path in (*config.inputs, *earlier) if path.is_file()]
    states = [(facts.st_size, facts.st_mtime_ns) for facts in (path.stat() for path in files)]
    piped = None if all(path.is_file() for path in config.inputs) else os.getpid()
    told = {name: value for name, value in asdict(config).items() if name not in _MAY_CHANGE}
    return json.dumps([__version__, device, weights_sha256, told, files, states, piped], default=str)
