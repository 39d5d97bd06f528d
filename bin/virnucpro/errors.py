"""Every error a user can meet, each with the exit code that Nextflow acts on (sysexits)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import IntEnum

from virnucpro.plain_text import visible


class ExitCode(IntEnum):
    """Exit codes of every task script; ``conf/base.config`` decides on them what to retry."""

    OK = 0
    USAGE = 2
    BAD_DATA = 65
    NO_INPUT = 66
    MODEL_UNAVAILABLE = 69
    IO_ERROR = 74
    TRY_AGAIN = 75


class VirnucproError(Exception):
    """Base of all errors with a meaning for the user: one line that says what, where and what to do."""

    exit_code: ExitCode = ExitCode.USAGE


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


def run_reporting_errors(program: str, main: Callable[[], None]) -> int:
    """Run ``main`` and turn what it raises into one line on stderr and an exit code.

    An unforeseen exception keeps its traceback: it is a fault of ours, not of the user.
    """
    try:
        main()
    except VirnucproError as error:
        print(f"{program}: error: {_one_line(error)}", file=sys.stderr)
        return int(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.IO_ERROR)
    except OSError as error:
        print(f"{program}: error: {_one_line(error)}; check free space and permissions", file=sys.stderr)
        return int(ExitCode.IO_ERROR)
    return int(ExitCode.OK)


def _one_line(error: BaseException) -> str:
    return visible(" ".join(str(error).split()))
