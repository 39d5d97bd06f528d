"""A command line made from a configuration: each of its options is an argument of the program."""

from __future__ import annotations

import argparse
import io
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from virnucpro import __version__
from virnucpro.children import end_with_task
from virnucpro.config import Config
from virnucpro.errors import UsageError, run_reporting_errors, writing_into
from virnucpro.process import end_process, open_streams, refuse_pandas

#: Several whole numbers, the first below zero.
_NEGATIVES: Final = re.compile(r"-\d+(,-?\d+)+")

Told = TypeVar("Told", bound=Config)

#: A command line holds some thousand paths, and no more.
_LIST = 'a JSON list of {"path": ..., "name": what messages and the ledger call it}'


def run_as_process(main: Callable[[], int]) -> NoReturn:
    """Run a program as the only one of its process, without pandas unless it asks for it; end with its exit code."""
    open_streams()
    refuse_pandas()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr has it: a name that the terminal's encoding lacks is shown by its escapes, and ends no program.
        sys.stdout.reconfigure(errors="backslashreplace")
    end_with_task()
    # Ignored, as some starters leave it, it would have the system keep no exit code of a child for who waits for one.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end_process(main())


def run_program(
    name: str, text: str | None, config: type[Told], run: Callable[[Told], int | None], argv: Sequence[str] | None
) -> int:
    """Read the arguments into a configuration and run the program on it; returns its exit code.

    Heavy imports belong into ``run``: a spawned worker imports all that its module imports.
    """
    parser = argparse.ArgumentParser(prog=name, description=text, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{name} {__version__}")
    kinds = get_type_hints(config)
    options = [each for each in fields(config) if each.metadata]  # type: ignore[arg-type]  # a dataclass
    for each in options:
        _add(parser, each, kinds[each.name])
    given = parser.parse_args(_with_negatives(sys.argv[1:] if argv is None else argv))

    def configured() -> int | None:
        values = {each.name: _value(each, kinds[each.name], getattr(given, each.name)) for each in options}
        for each in options:
            if (names := each.metadata["names"]) and (list_file := getattr(given, f"{each.name}_from")):
                from virnucpro.path_lists import named_paths

                listed = named_paths(values[each.name], list_file)
                values[each.name] = listed.paths
                if names in kinds:
                    values[names] = listed.names
                if listed.samples:
                    values["samples"] = listed.samples
        told = config(**values)
        with writing_into(getattr(told, "outdir", Path.cwd())):
            return run(told)

    return run_reporting_errors(name, configured)


def _with_negatives(argv: Sequence[str]) -> list[str]:
    """The arguments, a list such as ``-2,-1`` tied to the option before it: else argparse takes it for an option."""
    tied: list[str] = []
    for each in argv:
        if tied and _NEGATIVES.fullmatch(each) and tied[-1].startswith("--") and "=" not in tied[-1]:
            each = f"{tied.pop()}={each}"
        tied.append(each)
    return tied


def _add(parser: argparse.ArgumentParser, each: Field[Any], kind: Any) -> None:
    facts, default = each.metadata, None if each.default is MISSING else each.default
    flag = facts["flag"] or f"--{each.name.replace('_', '-')}"
    arguments: dict[str, Any] = {"help": facts["help"], "default": default, "metavar": facts["metavar"]}
    if facts["names"]:
        parser.add_argument(
            f"--{each.name}-from", type=Path, metavar="LIST", help=f"further {facts['metavar']}: {_LIST}"
        )
    if flag == "*":
        parser.add_argument(each.name, nargs="*", type=get_args(kind)[0], help=facts["help"], metavar=facts["metavar"])
        return
    if kind is bool:
        del arguments["metavar"]
        arguments["action"] = "store_false" if default else "store_true"
    elif get_origin(kind) is tuple and default:
        arguments |= {"default": ",".join(map(str, default)), "metavar": ",".join(facts["choices"]) or None}
    elif get_origin(kind) is tuple:
        arguments |= {"action": "append", "type": get_args(kind)[0], "default": []}
    else:
        numeric, path = kind in (int, int | None), kind in (Path, Path | None)
        arguments |= {"type": int if numeric else Path if path else str, "choices": facts["choices"] or None}
        arguments["required"] = each.default is MISSING
    parser.add_argument(*flag.split(), dest=each.name, **arguments)


def _value(each: Field[Any], kind: Any, given: Any) -> Any:
    """What an option's text means: several values come one by one, or with commas between them."""
    if isinstance(given, list):
        return tuple(given)
    if get_origin(kind) is not tuple:
        return given
    words = [word.strip() for word in given.split(",") if word.strip()]
    try:
        return tuple(map(get_args(kind)[0], words))
    except ValueError:
        raise UsageError(f"--{each.name} is '{given}', but must be whole numbers separated by commas") from None
