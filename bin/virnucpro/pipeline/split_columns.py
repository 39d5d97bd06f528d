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


def strings(data: bytes, offsets: npt.NDArray[np.int32], null: npt.NDArray[np.bool_] | None = None) -> pa.StringArray:
    """A column of UTF-8 texts that stand end to end in ``data``."""
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data), _validity(null))


def texts(values: Sequence[str]) -> pa.StringArray:
    """A column of a few texts."""
    encoded = [value.encode("utf-8", "replace") for value in values]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return strings(b"".join(encoded), offsets)


def repeated(indices: Array, values: Sequence[str]) -> pa.DictionaryArray:
    """A column of texts of which there are few."""
    return pa.DictionaryArray.from_arrays(numbers(indices.astype(np.int32)), texts(values))


def _validity(null: npt.NDArray[np.bool_] | None) -> pa.Buffer | None:
    return None if null is None else pa.py_buffer(np.packbits(~null, bitorder="little"))
