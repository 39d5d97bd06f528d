"""virnucpro: one command for the whole run and for each of its steps"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Final, NoReturn

from virnucpro import __version__
from virnucpro.cli.program import run_as_process

#: What comes after ``virnucpro`` -> its module here.
COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "embed": "run",
        "fetch-model": "fetch",
        "split-fasta": "split",
        "compile-kernels": "compile",
        "embed-shard": "embed",
        "merge-embeddings": "merge",
        "neighbours": "neighbours",
        "report": "report",
        "verify": "verify",
        "export": "export",
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named first on the arguments after it; returns its exit code.

    Options may be written with underscores, as Nextflow's parameters are.
    """
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name == "--version":
        print(f"virnucpro {__version__}")
        return 0
    if name in COMMANDS:
        dashed = [re.sub(r"^--[\w-]+", lambda flag: flag[0].replace("_", "-"), each) for each in arguments]
        return int(_program(name).main(dashed))
    asked_for_help = name in ("-h", "--help", "help")
    if not asked_for_help:
        print(f"virnucpro: error: no command '{name}'; the commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    described = "\n".join(f"  {each:<18}{(_program(each).main.__doc__ or '').splitlines()[0]}" for each in COMMANDS)
    print(f"usage: virnucpro COMMAND ...\n\n{described}\n\nvirnucpro COMMAND --help explains one.")
    return 0


def run() -> NoReturn:
    """The command as a process of its own."""
    run_as_process(main)


def _program(name: str) -> ModuleType:
    return importlib.import_module(f"virnucpro.cli.{COMMANDS[name]}")
