"""Time, memory and size of the page of a made-up run of a million records; writes benchmarks/results/report.csv.

PYTHONPATH=tests/report python -m benchmarks.measurements.bench_report
"""

from __future__ import annotations

import argparse
import importlib.metadata
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.environment import RESULTS, ROOT, conditions, write_csv
from synthetic_results import Run, make_results


def main() -> int:
    """Make the run, draw its page, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, help="where to make the run, kept for the next time; else a temporary one"
    )
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--shards", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        results = folder / "results"
        if not results.is_dir():
            make_results(
                results,
                Run(
                    records=options.records,
                    dim=options.dim,
                    shards=options.shards,
                    tokens_per_batch=65_536,
                    tokens_per_second=340_000,
                    rows_per_group=16_384,
                ),
            )
        begun = time.monotonic()
        subprocess.run(
            [sys.executable, ROOT / "bin" / "report.py", "--results", results, "--outdir", folder / "report"],
            check=True,
        )
        seconds = time.monotonic() - begun
        page = folder / "report" / "multiqc_report.html"
        # ru_maxrss is the largest of all descendants' peaks, MultiQC's process among them
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        figures = {"records": options.records, "dim": options.dim, "shards": options.shards}
        figures |= {
            "seconds": round(seconds, 1),
            "peak_mib": round(peak),
            "page_mb": round(page.stat().st_size / 1e6, 2),
            "multiqc": importlib.metadata.version("multiqc"),
        }
        write_csv(RESULTS / "report.csv", [{**figures, **conditions()}])
        print(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
