"""What every result row carries: machine, versions, commit; and how rows are written."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks import ROOT
from virnucpro.machine import processor_name

#: Where result files are; a trial names another folder.
RESULTS = Path(os.environ.get("VIRNUCPRO_RESULTS") or ROOT / "benchmarks" / "results")


def commit() -> str:
    """The commit measured; VIRNUCPRO_COMMIT names it where there is no git directory."""
    given = os.environ.get("VIRNUCPRO_COMMIT")
    if given:
        return given
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def conditions() -> dict[str, object]:
    """Machine, versions and time of a measurement."""
    import torch

    row: dict[str, object] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_count": os.cpu_count(),
    }
    if torch.cuda.is_available():
        row |= {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "power_limit_w": _power_limit()}
    else:
        row |= {"device": processor_name(), "cuda": "", "power_limit_w": ""}
    return row


def host_conditions() -> dict[str, object]:
    """Time, commit, processor and load of a measurement that needs no torch."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": f"{processor_name()} x{os.cpu_count()}",
        "load_average": round(os.getloadavg()[0], 2),
    }


def _power_limit() -> int | str:
    try:
        import pynvml

        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetEnforcedPowerLimit(pynvml.nvmlDeviceGetHandleByIndex(0)) / 1000)
    except Exception:  # a benchmark runs without NVML too
        return ""


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Least, median and greatest of repeated timings."""
    return {"seconds_min": min(seconds), "seconds_median": median(seconds), "seconds_max": max(seconds)}


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows that share the union of their keys."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, names)
        writer.writeheader()
        writer.writerows(rows)


def append_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Add rows to a file under the header it has, or under one made of their keys where there is none yet.

    Raises:
        ValueError: a key that the header does not have.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names: Sequence[str] = list(rows[0])
    if known := path.exists():
        with path.open(newline="", encoding="utf-8") as handle:
            names = csv.DictReader(handle).fieldnames or names
    with path.open("a", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, names)
        if not known:
            writer.writeheader()
        writer.writerows(rows)
