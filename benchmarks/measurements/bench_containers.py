"""Sizes of the images, and seconds until a task's program runs: bare, in Docker and in Apptainer.

    python -m benchmarks.measurements.bench_containers [--repeats 5]

Engines and images that are not there are left out. The engines take turns within each round, so that whatever else
the machine does falls on all of them; `ratio` is each median over the bare one of the same program.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from benchmarks.environment import RESULTS, ROOT, conditions, quantiles, write_csv

IMAGE = "virnucpro-embed"
PROGRAMS: Mapping[str, Sequence[str]] = {
    "true": ["true"],
    "import torch": ["python", "-c", "import torch"],
}


def version() -> str:
    found = re.search(r"version = '(.+)'", (ROOT / "nextflow.config").read_text())
    assert found
    return found[1]


def apptainer_image(name: str) -> str:
    return str(ROOT / "containers" / f"{name}-{version()}.img")


def sizes() -> list[dict[str, object]]:
    """Bytes of each image as the engine counts them."""
    rows: list[dict[str, object]] = []
    for name in ("virnucpro-tools", IMAGE):
        command = ["docker", "image", "inspect", "--format", "{{.Size}}", f"{name}:{version()}"]
        found = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("docker") else None
        if found and found.returncode == 0:
            rows.append({"what": "size", "engine": "docker", "program": name, "bytes": int(found.stdout)})
        path = ROOT / "containers" / f"{name}-{version()}.img"
        if path.exists():
            rows.append({"what": "size", "engine": "apptainer", "program": name, "bytes": path.stat().st_size})
    return rows


def engines() -> dict[str, Sequence[str]]:
    """What each engine puts before a program, with the options that the profiles give."""
    found: dict[str, Sequence[str]] = {"bare": []}
    present = {(row["engine"], row["program"]) for row in sizes()}
    if ("docker", IMAGE) in present:
        found["docker"] = ["docker", "run", "--rm", "--init", "--shm-size", "4g", f"{IMAGE}:{version()}"]
    if ("apptainer", IMAGE) in present and shutil.which("apptainer"):
        found["apptainer"] = ["apptainer", "exec", "--no-home", "--pid", apptainer_image(IMAGE)]
    return found


def starts(repeats: int) -> list[dict[str, object]]:
    """Seconds from the call to the end of each program in each engine; the first round only fills the page cache."""
    seconds: dict[tuple[str, str], list[float]] = {}
    prefixes = engines()
    for turn in range(repeats + 1):
        for engine, before in prefixes.items():
            for program, words in PROGRAMS.items():
                interpreter = sys.executable if engine == "bare" else "python"
                command = [*before, *(interpreter if word == "python" else word for word in words)]
                begin = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                if turn:
                    seconds.setdefault((engine, program), []).append(time.perf_counter() - begin)
    rows: list[dict[str, object]] = []
    for (engine, program), taken in seconds.items():
        of_bare = quantiles(taken)["seconds_median"] / quantiles(seconds["bare", program])["seconds_median"]
        measured = {name: round(value, 3) for name, value in quantiles(taken).items()}
        rows.append({"what": "start", "engine": engine, "program": program, **measured, "ratio": round(of_bare, 2)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    where = conditions()
    rows = [{**row, **where} for row in [*sizes(), *starts(options.repeats)]]
    write_csv(RESULTS / "containers.csv", rows)
    shown = ("what", "engine", "program", "bytes", "seconds_median", "ratio")
    for row in rows:
        print(*(row[name] for name in shown if name in row), sep="  ")


if __name__ == "__main__":
    main()
