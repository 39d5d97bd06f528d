"""Parquet files that others wrote: read only as what they were when they were written, and damage told as damage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.digests import FileDigest, file_digest
from virnucpro.errors import DataError


@contextmanager
def telling_damage(where: str, remedy: str) -> Iterator[None]:
    """Turn what pyarrow raises of a damaged file into DataError; what the system reports stays OSError.

    Raises:
        DataError: the file is not there or no readable Parquet file; ``where`` begins and ``remedy`` ends the message.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{where}: missing; {remedy}") from error
    except (pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: unreadable ({error}); {remedy}") from error
    except OSError as error:
        # pyarrow's own has no number: a header that cannot be decoded, a page that ends too early.
        if error.errno is not None:
            raise
        raise DataError(f"{where}: unreadable ({error}); {remedy}") from error


def check_file(path: Path, expected: str | None, where: str, remedy: str) -> None:
    """Compare a file with the digest of what was written.

    Raises:
        DataError: it is another, not there, or ``expected`` is None.
        OSError: it cannot be read.
    """
    if expected is None:
        raise DataError(f"{where}: nothing tells its digest; {remedy}")
    try:
        found = file_digest(path)
    except FileNotFoundError as error:
        raise DataError(f"{where}: missing; {remedy}") from error
    if found != expected:
        raise DataError(f"{where}: changed after it was written: its digest is another; {remedy}")


def checked_row_groups(path: Path, expected: str | None, where: str, remedy: str) -> Iterator[pa.Table]:
    """The row groups of a file. Each is hashed just before it is read; the last comes out only if the digest is right.

    Raises:
        DataError: the file is not what was written; the tables before the last may be wrong then.
        OSError: it cannot be read.
    """
    try:
        with telling_damage(where, remedy), FileDigest(path) as digest, pq.ParquetFile(path, pre_buffer=False) as file:
            last = file.num_row_groups - 1
            for group in range(last + 1):
                digest.advance(None if group == last else _end(file, group))
                table = file.read_row_group(group, use_threads=False)
                if group == last:
                    _check(digest, expected, where, remedy)
                yield table
            if last < 0:
                _check(digest, expected, where, remedy)
    except DataError:
        # A digest that is another says more than what could not be read.
        check_file(path, expected, where, remedy)
        raise


def _check(digest: FileDigest, expected: str | None, where: str, remedy: str) -> None:
    if digest.hexdigest() != expected:
        raise DataError(f"{where}: changed after it was written: its digest is another; {remedy}")


def _end(file: pq.ParquetFile, group: int) -> int:
    row_group = file.metadata.row_group(group)
    columns = map(row_group.column, range(row_group.num_columns))
    return max((each.data_page_offset + each.total_compressed_size for each in columns), default=0)
