"""Ctrl-C: a line and an exit code of the program that it is meant for, and no concern of what that has started."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

#: What a shell makes of SIGINT.
INTERRUPTED: Final = 130
#: What ends a process that does not expect it, and what a terminal or a scheduler may send to all of a task.
_ENDING: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
#: Seconds.
_SOON: Final = 0.1

_came = threading.Event()


def expect_interrupts() -> None:
    """Have this process end Ctrl-C in a line, wherever in it that comes.

    Where the starter has the signal ignored, as nohup does, it stays so.
    """
    sys.excepthook = _tell_uncaught
    sys.unraisablehook = _send_again
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def interrupted() -> bool:
    """Whether Ctrl-C came. What it broke off may tell it as an error of its own, as of a file that it cannot read."""
    return _came.is_set()


def tell_interrupted(program: str) -> int:
    """Say in a line that Ctrl-C ended a program; returns its exit code."""
    print(f"{program}: error: interrupted; run again", file=sys.stderr)
    return INTERRUPTED


@contextmanager
def starting_out_of_reach() -> Iterator[None]:
    """What this thread starts meanwhile gets no Ctrl-C: a terminal sends it to all, and one of them ends the others.

    Nor does this thread itself, as long as that lasts.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        # It removes what the others leave in shared memory, and must outlive them whatever ends them. Multiprocessing
        # starts it with the first process, and lets Ctrl-C through again as it does.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, before | {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    _came.set()
    raise KeyboardInterrupt


def _tell_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """While a program still imports what it needs, nothing of it catches anything."""
    if issubclass(kind, KeyboardInterrupt):
        os._exit(tell_interrupted(os.path.basename(sys.argv[0])))
    sys.__excepthook__(kind, error, trace)


def _send_again(unraisable: UnraisableHookArgs) -> None:
    """Where nobody can be told, as in a destructor, Ctrl-C would be lost: it comes once more, when that is over."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        again = threading.Timer(_SOON, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)
