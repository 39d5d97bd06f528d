"""Puts a fault into a task's program, where the environment asks for it; Python imports this at its start.

$VIRNUCPRO_FAULT is a JSON object: the ``program``, the function at whose first call it happens (``target``, such as
``virnucpro.output.writer:ShardWriter.write``), what happens (``action``), and a file (``once``) that is made by it,
so that it happens in the first try alone. Actions: the name of a signal, which the program sends to itself; the name
of an error, which the function raises; ``pause SECONDS``, for which the program waits there; ``clock``, after which
the system's time jumps at each reading; ``damage GLOB``, ``replace GLOB``, ``swap GLOB`` and ``delete GLOB``, which
change the files of the task's folder that they name.

$VIRNUCPRO_WRONG is another: the function (``target``, such as ``virnucpro.kernels.attention:varlen_attention``) whose
tensor comes out multiplied by ``factor``, and ``where``: ``kernel``, if only where a kernel of ours computes it, or
``everywhere``. Kernels run on the CPU where TRITON_INTERPRET=1.
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


def spoilt(function: Callable[..., Any], module: Any, factor: float, where: str) -> Callable[..., Any]:
    """The function of a module, computing wrongly."""

    def call(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        return result * factor if where == "everywhere" or module.uses_triton(arguments[0]) else result

    return call


def let_loops_take_arrays_of_one(interpreter: Any) -> None:
    """NumPy 2.4 and later refuse int() of a one-element array, which Triton 3.6's interpreter uses for loop bounds."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


class Changed(MetaPathFinder):
    """Finds a module as Python does, and changes it once it is loaded."""

    def __init__(self, module: str, change: Callable[[Any], None]) -> None:
        self.module, self.change = module, change

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None and spec.loader is not None
        load = spec.loader.exec_module

        def load_changed(module: Any) -> None:
            load(module)
            self.change(module)

        spec.loader.exec_module = load_changed  # type: ignore[method-assign]
        return spec


def replace(target: str, other: Callable[[Any, Any], Any]) -> None:
    """Have the function that ``target`` names replaced by what ``other`` makes of it and its module."""
    module_name, _, path = target.partition(":")

    def change_it(module: Any) -> None:
        *owners, name = path.split(".")
        owner = module
        for each in owners:
            owner = getattr(owner, each)
        setattr(owner, name, other(getattr(owner, name), module))

    sys.meta_path.insert(0, Changed(module_name, change_it))


if os.environ.get("TRITON_INTERPRET") == "1":
    sys.meta_path.insert(0, Changed("triton.runtime.interpreter", let_loops_take_arrays_of_one))
_fault = json.loads(os.environ.get("VIRNUCPRO_FAULT", "null"))
if _fault and any(Path(each).name == _fault["program"] for each in sys.orig_argv[1:3]):
    replace(_fault["target"], lambda function, _: faulty(function, _fault))
if _wrong := json.loads(os.environ.get("VIRNUCPRO_WRONG", "null")):
    replace(_wrong["target"], lambda function, module: spoilt(function, module, _wrong["factor"], _wrong["where"]))
