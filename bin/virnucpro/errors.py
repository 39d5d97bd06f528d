"""Every error a user can meet, each with the exit code that Nextflow acts on (sysexits)."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Final

from virnucpro.device_errors import device_fault
from virnucpro.interrupts import interrupted, tell_interrupted
from virnucpro.plain_text import visible
from virnucpro.unfinished import none_left


class ExitCode(IntEnum):
    """Exit codes of every task script; ``conf/base.config`` decides on them what to retry."""

    OK = 0
    USAGE = 2
    BAD_DATA = 65
    NO_INPUT = 66
    MODEL_UNAVAILABLE = 69
    IO_ERROR = 74
    TRY_AGAIN = 75


#: A path that can mean no file, whenever it is tried: links in a circle, a name too long, a file used as a folder, or a
#: folder as a file.
_NO_SUCH_NAME: Final = (errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR)

#: What the system says of a whole disk, to who writes into a file that is open.
_OF_A_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


class VirnucproError(Exception):
    """Base of all errors with a meaning for the user: one line that says what, where and what to do."""

    exit_code: int = ExitCode.USAGE


class UsageError(VirnucproError):
    """An option or parameter that makes no sense."""

    exit_code = ExitCode.USAGE


class DataError(VirnucproError):
    """Input that is there but cannot be used."""

    exit_code = ExitCode.BAD_DATA


class FastaFormatError(DataError):
    """A FASTA file that cannot be read, with the place and the remedy.

    Args:
        message: what is wrong.
        file: the file as the user named it.
        line: 1-based line, or None where the fault has no line.
        remedy: what the user should do.
    """

    def __init__(self, message: str, *, file: str, line: int | None = None, remedy: str) -> None:
        place = file if line is None else f"{file}, line {line}"
        super().__init__(f"{place}: {message}; {remedy}")
        self.file = file
        self.line = line
        self._said = message, remedy

    def __reduce__(self) -> tuple[partial[FastaFormatError], tuple[str]]:
        """How it goes to another process: pickle would call it with its text alone."""
        message, remedy = self._said
        return partial(FastaFormatError, file=self.file, line=self.line, remedy=remedy), (message,)


class InputMissingError(VirnucproError):
    """An input path that does not exist or cannot be opened."""

    exit_code = ExitCode.NO_INPUT


class ModelError(VirnucproError):
    """A model that cannot be had: unknown name, failed download, unreadable or unsafe checkpoint."""

    exit_code = ExitCode.MODEL_UNAVAILABLE


class OutputError(VirnucproError):
    """Reading or writing failed for reasons outside the data: full disk, permissions, a lost mount."""

    exit_code = ExitCode.IO_ERROR


class TryAgainError(VirnucproError):
    """A failure that a retry, smaller or elsewhere, may cure: GPU memory, a lost device."""

    exit_code = ExitCode.TRY_AGAIN


class LedgerError(DataError):
    """The ledger and the vectors do not account for each other: a record without a vector or a reason."""


def run_reporting_errors(program: str, main: Callable[[], int | None]) -> int:
    """Run ``main`` and turn what it raises into one line on stderr and an exit code; else that is what it returns.

    An unforeseen exception keeps its traceback: it is a fault of ours, not of the user.
    """
    try:
        with none_left():
            return int(main() or ExitCode.OK)
    except (Exception, KeyboardInterrupt) as error:
        if interrupted() or isinstance(error, KeyboardInterrupt):
            return tell_interrupted(program)
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return int(ExitCode.IO_ERROR)
        if (code := tell(program, error)) is None:
            raise
        return code


def tell(program: str, error: Exception) -> int | None:
    """Say an error in one line on stderr; returns its exit code, or None where it has no meaning for the user."""
    if interrupted() or (told := _foreseen(error)) is None:
        return None
    code, line = told
    print(f"{program}: error: {_one_line(line)}", file=sys.stderr)
    return int(code)


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Have an error of the disk name the folder where it names no file: an open file has no path any more."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_A_DISK and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), str(folder)) from error
        raise


def _foreseen(error: BaseException) -> tuple[int, str] | None:
    """Exit code and line of an error that has a meaning for the user."""
    if isinstance(error, VirnucproError):
        return error.exit_code, str(error)
    if isinstance(error, OSError | MemoryError | RuntimeError | ImportError) and (told := device_fault(error)):
        return ExitCode.TRY_AGAIN, str(told)
    if isinstance(error, UnicodeEncodeError) and "\udc80" <= error.object[error.start] <= "\udcff":
        return ExitCode.NO_INPUT, f"{error.object}: a path that is not in UTF-8, which Arrow cannot open; rename it"
    if isinstance(error, OSError):
        code, remedy = _of_the_system(error)
        return code, f"{error}; {remedy}"
    return None


def _of_the_system(error: OSError) -> tuple[ExitCode, str]:
    """Exit code and remedy. Decoders, such as Arrow's and gzip's, raise OSError without a number for damaged data."""
    if error.errno is None:
        return ExitCode.BAD_DATA, "a file is damaged: copy it again, or run again"
    if error.errno in _NO_SUCH_NAME:
        return ExitCode.NO_INPUT, "check the path"
    return ExitCode.IO_ERROR, "check free space and permissions"


def _one_line(told: object) -> str:
    return visible(" ".join(str(told).split()))
