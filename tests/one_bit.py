"""The smallest change of a file."""

from __future__ import annotations

from pathlib import Path


def flip_a_bit(path: Path) -> None:
    """Of the byte in its middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
