"""Draws a run's report from its saved content: where the run was made, MultiQC need not be installed.

python -m benchmarks.pages.draw_page page.json.gz report.html
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virnucpro.report.multiqc import render

#: Sections in order, and what stands at the top.
Content = tuple[Sequence[Mapping[str, Any]], Mapping[str, str]]


def save_content(content: Content, path: Path) -> None:
    """Keep what ``page_content`` gave."""
    sections, header = content
    with gzip.open(path, "wt", encoding="utf-8") as handle:
        json.dump({"sections": list(sections), "header": dict(header)}, handle, allow_nan=False)


def draw(saved: Path, page: Path) -> None:
    """Write the page of the content that ``save_content`` kept."""
    with gzip.open(saved, "rt", encoding="utf-8") as handle:
        content = json.load(handle)
    page.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=page.parent) as folder:
        render(content["sections"], Path(folder), content["header"]).replace(page)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("saved", type=Path, help="what bench_gpus.py wrote")
    parser.add_argument("page", type=Path, help="the HTML file to write")
    options = parser.parse_args(argv)
    draw(options.saved, options.page)
    print(options.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
