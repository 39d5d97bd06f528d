"""The locks that conf/gpu_slot.sh takes on devices, for tests that make devices up."""

from __future__ import annotations

from pathlib import Path

#: Shared by all users and runs of this machine.
LOCKS = Path("/tmp/virnucpro-gpu-locks")


def remove_locks(*devices: str) -> None:
    """Leave no lock of devices that do not exist."""
    for device in devices:
        (LOCKS / device).unlink(missing_ok=True)
