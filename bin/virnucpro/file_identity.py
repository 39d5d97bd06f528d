"""How a file is known to be the one that it was."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def identity_of(facts: os.stat_result) -> tuple[int, ...]:
    """Other for a file that was written to, or replaced, even where its size and modification time were kept.

    Who writes a file cannot set the time of its inode's last change (ctime).
    """
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_dev


def digest_of_code(*folders: Path) -> str:
    """SHA-256 of the Python files, and the tables beside them, of folders of the package."""
    files = sorted(file for folder in folders for file in folder.iterdir() if file.suffix in (".py", ".json"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
