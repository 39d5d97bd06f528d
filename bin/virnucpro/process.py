"""How a process of ours begins and ends: without what it need not import, and without taking PyTorch apart."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import NoReturn

from virnucpro.errors import ExitCode


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not imported by this program", name=fullname)


def refuse_pandas() -> None:
    """Have this process import no pandas.

    pyarrow imports it, where it is installed, to ask whether what it is given is of it: most of a second that nothing
    here needs.
    """
    sys.meta_path.insert(0, _NoPandas())


def allow_pandas() -> None:
    """Have this process import pandas after all: what its program is made of needs it."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _NoPandas)]


def end_process(code: int) -> NoReturn:
    """Tidy up and end this process with an exit code; 74 in place of 0 where its last words cannot be written."""
    # Whatever is still to be tidied up, Ctrl-C ends it without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    atexit._run_exitfuncs()
    unwritten = _flush()
    # Taking PyTorch and its CUDA context apart takes most of a second, and the end of the process frees the same.
    os._exit(code or unwritten)


def open_streams() -> None:
    """Give this process and its children /dev/null for each of the three streams that it was started without.

    A file that is opened later would have the stream's number, and in it what is meant for the stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))


def _flush() -> int:
    """Write out what both streams hold; returns the exit code where that fails."""
    code = ExitCode.OK
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            code = ExitCode.IO_ERROR
    return int(code)


@contextmanager
def importing() -> Iterator[None]:
    """Import inside without collecting garbage, of which modules make none: a tenth of the time that PyTorch takes."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
