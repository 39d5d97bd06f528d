"""Ways in which a file becomes another, by a seed."""

from __future__ import annotations

import random
from pathlib import Path


def damage(path: Path, rng: random.Random) -> str:
    """Change a file in one of six ways, and tell which."""
    content = bytearray(path.read_bytes())
    size = len(content)
    kind = rng.choice(("flip", "flip", "byte", "zeros", "cut", "longer", "twice", "other"))
    at = rng.randrange(size) if size else 0
    if kind == "longer" or not size:
        content += rng.randbytes(rng.randrange(1, 40))
    elif kind == "flip":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        content[at] = rng.randrange(256)
    elif kind == "zeros":
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    elif kind == "cut":
        del content[at:]
    elif kind == "twice":
        content[at:at] = content[at : at + rng.randrange(1, 200)]
    else:
        content[at : at + 8] = rng.randbytes(8)
    path.write_bytes(content)
    return f"{kind} at {at} of {size}"
