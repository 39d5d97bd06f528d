"""Run in an image: prints how many sources of Python it holds, and those whose bytecode would not be read."""

from __future__ import annotations

import struct
import sysconfig
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path


def sources() -> list[Path]:
    """The modules of Python itself and of the packages; what no module can be named like is a program."""
    roots = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")}
    return [path for root in roots for path in root.rglob("*.py") if path.stem.isidentifier()]


def compiled(path: Path) -> bool:
    kept = Path(cache_from_source(str(path)))
    if not kept.exists():
        return False
    head, status = kept.read_bytes()[:16], path.stat()
    return head == MAGIC_NUMBER + struct.pack("<III", 0, int(status.st_mtime), status.st_size)


if __name__ == "__main__":
    found = sources()
    print(len(found), *(path for path in found if not compiled(path)))
