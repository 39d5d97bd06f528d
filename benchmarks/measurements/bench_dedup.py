"""The split's deduplication against DuckDB's, on the same keys, in turns: seconds and memory.

    python -m benchmarks.measurements.bench_dedup --records 10000000

Both give every record the index of its sequence, in the order of first appearance, and must agree. Each turn is a
process of its own; ours runs in one process too, as DuckDB's threads are of one. DuckDB may take ``--memory`` MiB and
puts the rest on disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from benchmarks.environment import RESULTS, append_csv, host_conditions

from virnucpro.split.dedup import deduplicate
from virnucpro.split.spool import COLUMN_TYPES, Extent, Spool, SpooledBlock
from virnucpro.split.workers import Workers

PROGRAMS = ("split", "duckdb")
FILE_KINDS = ("keys", "lengths")
NOWHERE = Extent("none", 0, 0)


def main() -> None:
    options = _options()
    if options.program:
        print(json.dumps({"split": _ours, "duckdb": _duckdb}[options.program](options)))
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-dedup-", dir=options.folder))
    try:
        _generate(folder, options)
        turns = [{each: _turn(options, folder, each) for each in PROGRAMS} for _ in range(options.repeats)]
        ours, theirs = (np.fromfile(folder / f"{each}.indices", np.int64) for each in PROGRAMS)
        if not np.array_equal(ours, theirs):
            raise SystemExit("the two do not agree on the records' indices")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _report(options, turns)


def _generate(folder: Path, options: argparse.Namespace) -> None:
    """Random keys; a share of the records repeats earlier ones."""
    random = np.random.default_rng(0)
    words = random.integers(0, 1 << 63, (options.records, 2), np.int64).astype(">u8")
    repeats = np.flatnonzero(random.random(options.records) < options.duplicates)
    repeats = repeats[repeats > 0]
    words[repeats] = words[(random.random(len(repeats)) * repeats).astype(np.int64)]
    words.tofile(folder / "keys.bin")
    np.full(options.records, 300, np.int32).tofile(folder / "lengths.bin")


def _turn(options: argparse.Namespace, folder: Path, program: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.measurements.bench_dedup", "--program", program]
    command += ["--folder", str(folder), "--records", str(options.records), "--memory", str(options.memory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{program}: {done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _ours(options: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=options.folder) as work:
        for kind in FILE_KINDS:
            (Path(work) / f"{kind}.bin").symlink_to(options.folder / f"{kind}.bin")
        blocks = [SpooledBlock(0, options.records, 0, NOWHERE, NOWHERE, NOWHERE)]
        spool = Spool(Path(work), None, None, files=("keys",), blocks=blocks)
        with Workers(1 << 20, 1) as workers:
            begun = time.perf_counter()
            deduplicate(spool, workers, enabled=True, known=None)
            seconds = time.perf_counter() - begun
        shutil.copyfile(spool.path("unique"), options.folder / "split.indices")
    return _measured(seconds)


def _duckdb(options: argparse.Namespace) -> dict[str, float]:
    import duckdb

    keys = np.fromfile(options.folder / "keys.bin", COLUMN_TYPES["keys"])
    high, low = (np.ascontiguousarray(keys[name], np.uint64) for name in ("high", "low"))
    del keys
    records = {"high": high, "low": low, "ordinal": np.arange(len(high))}  # noqa: F841  # the query names it
    with tempfile.TemporaryDirectory(dir=options.folder) as work:
        database = duckdb.connect(str(Path(work) / "dedup.duckdb"))
        database.execute(f"SET memory_limit = '{options.memory}MiB'; SET threads = 1")
        begun = time.perf_counter()
        database.execute("CREATE TABLE records AS SELECT * FROM records")
        found = database.execute("""
            WITH firsts AS (SELECT high, low, min(ordinal) AS first FROM records GROUP BY high, low),
                numbered AS (SELECT high, low, row_number() OVER (ORDER BY first) - 1 AS index FROM firsts)
            SELECT index FROM records JOIN numbered USING (high, low) ORDER BY ordinal
        """)
        with (options.folder / "duckdb.indices").open("wb") as indices:
            for batch in found.to_arrow_reader(1 << 20):  # type: ignore[union-attr]
                indices.write(batch.column(0).to_numpy().astype(np.int64).tobytes())
        seconds = time.perf_counter() - begun
        database.close()
    return _measured(seconds)


def _measured(seconds: float) -> dict[str, float]:
    return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _report(options: argparse.Namespace, turns: list[dict[str, dict[str, float]]]) -> None:
    import duckdb

    ratios = [turn["split"]["seconds"] / turn["duckdb"]["seconds"] for turn in turns]
    row = host_conditions() | {"numpy": np.__version__, "duckdb": duckdb.__version__}
    row |= {"records": options.records, "duplicates": options.duplicates, "repeats": options.repeats}
    for each in PROGRAMS:
        row[f"{each}_seconds"] = round(median(turn[each]["seconds"] for turn in turns), 2)
        row[f"{each}_peak_mib"] = round(max(turn[each]["peak_mib"] for turn in turns))
    row |= {"duckdb_memory_mib": options.memory, "ratio": round(median(ratios), 3)}
    print(row)
    append_csv(options.out, [row])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--duplicates", type=float, default=0.3, help="share of the records that repeat earlier ones")
    parser.add_argument("--memory", type=int, default=512, help="MiB that DuckDB may take")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each")
    parser.add_argument("--folder", type=Path, help="scratch space (default: the system's)")
    parser.add_argument("--out", type=Path, default=RESULTS / "dedup.csv")
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
