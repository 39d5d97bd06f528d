"""Write docs/performance.md, docs/parity.md and the pictures in benchmarks/results/ from the files beside these.

    python -m benchmarks.pages.render_docs

Any of the result files may be missing: the pages then say what is not measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.environment import RESULTS, ROOT
from benchmarks.pages.engines_plot import engines_svg
from benchmarks.pages.gpus_section import gpus_svg
from benchmarks.pages.parity_page import parity_page
from benchmarks.pages.performance_page import performance_page
from benchmarks.pages.result_tables import files
from benchmarks.pages.run_section import waterfall

PLOT = "benchmarks/results/engines.svg"


def render(results: Path) -> dict[str, str]:
    """Path in the project -> text of each generated file."""
    return {
        PLOT: engines_svg(results),
        "docs/performance.md": performance_page(results, f"../{PLOT}"),
        "docs/parity.md": parity_page(results),
        **{f"benchmarks/results/{path.stem}.svg": gpus_svg(results) for path in files(results, "gpus.csv")},
        **{f"benchmarks/results/{path.stem}.svg": waterfall(path) for path in files(results, "run-*.csv")},
    }


def main() -> None:
    """Write the files and name them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--root", type=Path, default=ROOT, help="where to write, the project unless given")
    options = parser.parse_args()
    for name, text in render(options.results).items():
        path = options.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
