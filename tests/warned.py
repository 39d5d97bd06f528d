"""What Nextflow warns of in a run."""

from __future__ import annotations

import re


def warnings(output: str) -> list[str]:
    """The lines that begin with WARN; those of Nextflow's virtual machine say WARNING, and are none of its own."""
    return [line for line in output.splitlines() if re.match(r"\W*WARN\b(?!ING)", line)]
