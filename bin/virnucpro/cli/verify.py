"""verify.py"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virnucpro.cli.program import run_program
from virnucpro.config import Config, option
from virnucpro.plain_text import visible


@dataclass(frozen=True)
class _VerifyConfig(Config):
    results: tuple[Path, ...] = option("output folders of finished runs", flag="*", metavar="RESULTS")


def main(argv: Sequence[str] | None = None) -> int:
    """Prove finished results anew from their own files: each byte as it was written, each record with its vector."""
    return run_program("verify.py", main.__doc__, _VerifyConfig, _run, argv)


def _run(config: _VerifyConfig) -> int:
    from virnucpro.errors import UsageError, tell
    from virnucpro.merge.verify import verify

    if not config.results:
        raise UsageError("no results given; name the output folder of a finished run")
    highest = 0
    for results in config.results:
        try:
            proof = verify(results)
        except Exception as error:
            if (code := tell("verify.py", error)) is None:
                raise
            highest = max(highest, code)
        else:
            print(visible(proof.in_words(results)), flush=True)
    return highest
