"""Sequence keys (128 bits as 32 hex digits) in columns: their order-independent digest."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.errors import LedgerError

KEY_DIGITS: Final = 32
KEY_BYTES: Final = 16
_MODULUS: Final = 1 << 128
_NOT_HEX: Final = 255
_NIBBLES: Final = np.full(256, _NOT_HEX, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16, dtype=np.uint8)


def key_words(keys: pa.StringArray | pa.ChunkedArray) -> npt.NDArray[np.uint32]:
    """Keys as numbers: (rows, 4) uint32, most significant word first.

    Raises:
        LedgerError: a key is null or not 32 lower-case hex digits.
    """
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    if not len(keys):
        return np.empty((0, 4), np.uint32)
    offsets = np.frombuffer(keys.buffers()[1], np.int32)[keys.offset : keys.offset + len(keys) + 1]
    if keys.null_count or not (np.diff(offsets) == KEY_DIGITS).all():
        raise LedgerError(f"a sequence_key is not {KEY_DIGITS} hex digits; split the input again")
    digits = np.frombuffer(keys.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    nibbles = _NIBBLES[digits].reshape(-1, 16, 2)
    if (nibbles == _NOT_HEX).any():
        raise LedgerError("a sequence_key holds other than lower-case hex digits; split the input again")
    octets = nibbles[:, :, 0] << 4 | nibbles[:, :, 1]
    return octets.view(">u4").astype(np.uint32)


def packed_keys(keys: pa.StringArray | pa.ChunkedArray) -> npt.NDArray[np.bytes_]:
    """Keys as 16 bytes each, which sort as they do; errors as ``key_words``."""
    chunks = keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]
    # A chunk at a time: more than 2 GiB of text are no one array.
    packed = [key_words(chunk).astype(">u4").view(f"S{KEY_BYTES}").ravel() for chunk in chunks]
    return np.concatenate([*packed, np.empty(0, f"S{KEY_BYTES}")])


def binary_key_words(keys: pa.FixedSizeBinaryArray | pa.ChunkedArray) -> npt.NDArray[np.uint32]:
    """As ``key_words``, of keys as the shards hold them: 16 bytes each, most significant first."""
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    octets = np.frombuffer(keys.buffers()[1], np.uint8)[KEY_BYTES * keys.offset :][: KEY_BYTES * len(keys)]
    return octets.view(">u4").astype(np.uint32).reshape(-1, 4)


class KeyDigest:
    """Count and sum modulo 2^128 of keys: equal for equal multisets of keys, whatever their order.

    A sum, not an exclusive or: a key that is there twice must not cancel itself.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def add(self, keys: pa.StringArray | pa.ChunkedArray) -> None:
        """Add a column of keys."""
        words = key_words(keys)
        self.count += len(words)
        sums = [int(value) for value in words.sum(axis=0, dtype=np.uint64)]
        self._sum = (self._sum + sum(value << 32 * (3 - i) for i, value in enumerate(sums))) % _MODULUS

    def hexdigest(self) -> str:
        """The sum as 32 hex digits."""
        return f"{self._sum:032x}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyDigest) and (self.count, self._sum) == (other.count, other._sum)

    def __hash__(self) -> int:
        return hash((self.count, self._sum))
