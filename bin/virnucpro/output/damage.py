"""What pyarrow says of damaged files, as one kind of error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa

from virnucpro.device_errors import is_out_of_memory
from virnucpro.errors import DataError, VirnucproError

#: What to do about finished results that are damaged.
REMEDY_OF_RESULTS: Final = "run again, or fetch the results anew from where they are whole"


@contextmanager
def reading(where: object, remedy: str) -> Iterator[None]:
    """Tell a file that is not what was written by DataError; a disk that fails, or memory, keeps its error.

    pyarrow raises whatever its decoder met: its own errors, KeyError, and OSError without a number for what Thrift or a
    codec could not take.
    """
    try:
        yield
    except VirnucproError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{where}: {error.filename or 'a file'} is missing; {remedy}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(f"{where}: unreadable ({_first_line(error)}); {remedy}") from error
    except (pa.ArrowException, LookupError, ValueError, TypeError, MemoryError, RecursionError) as error:
        if is_out_of_memory(error):
            raise
        raise DataError(f"{where}: unreadable ({_first_line(error)}); {remedy}") from error


@contextmanager
def calling(names: Mapping[Path, str]) -> Iterator[None]:
    """Have errors name folders as the user does: a task finds them under other names."""
    try:
        yield
    except VirnucproError as error:
        text = str(error)
        for folder, name in names.items():
            here, theirs = re.escape(str(folder)), name.rstrip("/").replace("\\", r"\\")
            text = re.sub(rf"(?<![\w./-]){here}(?=[/:])", theirs, text)
        error.args = (text,)
        raise


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
