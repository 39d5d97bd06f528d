"""Puts one fault into a task's program, where the environment asks for it; Python imports this at its start.

$VIRNUCPRO_FAULT is a JSON object: the ``program``, the function at whose first call it happens (``target``, such as
``virnucpro.output.writer:ShardWriter.write``), what happens (``action``), and a file (``once``) that is made by it,
so that it happens in the first try alone. Actions: the name of a signal, which the program sends to itself; the name
of an error, which the function raises; ``pause SECONDS``, for which the program waits there; ``clock``, after which
the system's time jumps at each reading; ``damage GLOB``, ``replace GLOB``, ``swap GLOB`` and ``delete GLOB``, which
change the files of the task's folder that they name.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any


def happen(action: str) -> None:
    """Make the fault."""
    if action.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, action))
        time.sleep(60)
    elif action.startswith("pause "):
        time.sleep(float(action.removeprefix("pause ")))
    elif action == "clock":
        steps, real = itertools.cycle((-3600.0, 0.0, 86_400.0)), time.time
        time.time = lambda: real() + next(steps)
    elif action == "MemoryError":
        raise MemoryError
    elif action == "ENOSPC":
        raise OSError(errno.ENOSPC, "No space left on device")
    elif action == "OutOfMemoryError":
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    else:
        kind, _, pattern = action.partition(" ")
        paths = sorted(Path().glob(pattern))
        assert paths, f"no {pattern} in {Path().absolute()}"
        for path in paths:
            change(kind, path.resolve())


def change(kind: str, path: Path) -> None:
    """Damage a file, put its own beginning or another file of the same size and time in its place, or delete it."""
    content, facts = path.read_bytes(), path.stat()
    if kind == "delete":
        path.unlink()
    elif kind == "replace":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "swap":
        other = path.with_suffix(".other")
        other.write_bytes(content.replace(b"A", b"C"))
        os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        other.replace(path)
    else:
        middle = len(content) // 2
        # A letter stays one, so that text is as it could have been.
        path.write_bytes(content[:middle] + bytes((content[middle] ^ 2,)) + content[middle + 1 :])


def faulty(function: Callable[..., Any], fault: dict[str, str]) -> Callable[..., Any]:
    """The function, at whose first call of all the fault happens."""

    def call(*arguments: Any, **named: Any) -> Any:
        try:
            os.close(os.open(fault["once"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return function(*arguments, **named)
        happen(fault["action"])
        return function(*arguments, **named)

    return call


class Injector(MetaPathFinder):
    """Finds the module of the target as Python does, and puts the fault into it once it is loaded."""

    def __init__(self, fault: dict[str, str]) -> None:
        self.fault = fault
        self.module, _, self.path = fault["target"].partition(":")

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None and spec.loader is not None
        load = spec.loader.exec_module

        def load_with_fault(module: Any) -> None:
            load(module)
            *owners, name = self.path.split(".")
            owner = module
            for each in owners:
                owner = getattr(owner, each)
            setattr(owner, name, faulty(getattr(owner, name), self.fault))

        spec.loader.exec_module = load_with_fault  # type: ignore[method-assign]
        return spec


_asked = json.loads(os.environ.get("VIRNUCPRO_FAULT", "null"))
if _asked and any(Path(each).name == _asked["program"] for each in sys.orig_argv[1:3]):
    sys.meta_path.insert(0, Injector(_asked))
