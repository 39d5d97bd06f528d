"""Arrow columns straight from numpy and bytes: ``pyarrow.array`` would import pandas, a second in every process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


def numbers(values: Array, null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """A column of integers or booleans, null where ``null`` is true."""
    data = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else np.ascontiguousarray(values)
    kind = pa.bool_() if values.dtype == np.bool_ else pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [_validity(null), pa.py_buffer(data)])


def strings(
    data: bytes | pa.Buffer, offsets: npt.NDArray[np.int32], null: npt.NDArray[np.bool_] | None = None
) -> pa.StringArray:
    """A column of UTF-8 texts that stand end to end in ``data``."""
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data), _validity(null))


def texts(values: Sequence[str]) -> pa.StringArray:
    """A column of a few texts."""
    encoded = [value.encode("utf-8", "replace") for value in values]
    return strings(b"".join(encoded), offsets_of(np.array(list(map(len, encoded)))))


def offsets_of(lengths: Array) -> npt.NDArray[np.int32]:
    """Where texts of these lengths begin that stand end to end, and where the last ends."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def repeated(indices: Array, values: Sequence[str]) -> pa.DictionaryArray:
    """A column of texts of which there are few."""
    return pa.DictionaryArray.from_arrays(numbers(indices.astype(np.int32)), texts(values))


def pieces(data: bytes | Array, edges: Array, which: int, rows: Array | None = None) -> pa.BinaryArray:
    """Copy one stretch for each row of ``edges``, end to end.

    Args:
        data: a text, below 2 GiB.
        edges: rising positions in it, (rows, k); stretch i of a row reaches from edge i to the next one, that of the
            last edge to the next row, or to the end.
        which: the stretch to copy.
        rows: rows to copy, in any order; all without it.
    """
    count, step = edges.shape
    offsets = np.empty(count * step + 1, np.int32)
    offsets[:-1] = edges.ravel()
    offsets[-1] = len(data)
    if (offsets[1:] < offsets[:-1]).any():
        raise AssertionError("stretches that overlap: Arrow would read outside of the text")
    stretches = pa.Array.from_buffers(pa.binary(), count * step, [None, pa.py_buffer(offsets), pa.py_buffer(data)], 0)
    places = np.arange(which, count * step, step) if rows is None else rows * step + which
    return stretches.take(numbers(places))


def joined(column: pa.BinaryArray) -> npt.NDArray[np.uint8]:
    """The bytes of a column made by ``pieces``, end to end."""
    last = int(np.frombuffer(column.buffers()[1], np.int32)[len(column)])
    return np.frombuffer(column.buffers()[2] or b"", np.uint8, last)


def _validity(null: npt.NDArray[np.bool_] | None) -> pa.Buffer | None:
    return None if null is None else pa.py_buffer(np.packbits(~null, bitorder="little"))
