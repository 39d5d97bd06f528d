"""How a file is known to be the one that it was."""

from __future__ import annotations

import os


def identity_of(facts: os.stat_result) -> tuple[int, ...]:
    """Other for a file that was written to, or replaced, even where its size and modification time were kept.

    Who writes a file cannot set the time of its inode's last change (ctime).
    """
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_dev
