"""The command lines of the task scripts, one module for each, so that an edit of one concerns no other."""

import os
import sys
from types import TracebackType


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In a line, too, where Ctrl-C comes while a program still imports what it needs."""
    if issubclass(kind, KeyboardInterrupt):
        from virnucpro.errors import tell_interrupted

        os._exit(tell_interrupted(os.path.basename(sys.argv[0])))
    sys.__excepthook__(kind, error, trace)


# Before anything else is imported.
sys.excepthook = _tell
