"""export.py"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import TracebackType

from virnucpro.cli.program import run_program
from virnucpro.errors import ExitCode
from virnucpro.export.config import ExportConfig
from virnucpro.plain_text import visible


def main(argv: Sequence[str] | None = None) -> int:
    """Write a finished results folder in the layout of another tool."""
    code = run_program("export.py", main.__doc__, ExportConfig, _run, argv)
    if code == ExitCode.IO_ERROR and "h5py" in sys.modules:
        # HDF5 tries anew at the end of the process what the full disk did not take, and dies of it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(config: ExportConfig) -> None:
    from virnucpro.export.export import export

    sys.excepthook = _all_but_unclosed
    sys.unraisablehook = lambda told: None if _unclosed(told.exc_value) else sys.__unraisablehook__(told)
    print(*map(visible, export(config)), sep="\n")


def _unclosed(error: BaseException | None) -> bool:
    """Whether h5py tells of one more object that a full disk keeps from closing; what is raised says it once."""
    return isinstance(error, RuntimeError) and "decrement id ref count" in str(error)


def _all_but_unclosed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not _unclosed(error):
        sys.__excepthook__(kind, error, trace)
