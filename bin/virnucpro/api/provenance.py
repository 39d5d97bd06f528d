"""What the record of a run tells of a command without Nextflow."""

from __future__ import annotations

import getpass
import os
import platform
import shlex
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from virnucpro.api.config import RunConfig
from virnucpro.model.fetch import is_local


def facts_of_run(config: RunConfig) -> dict[str, str | None]:
    """What the merge is told of the run that begins now, under the names of its options."""
    full = config.provenance == "full"
    command = ["virnucpro", "embed", *(_text(path, full) for path in config.inputs), *_options(config, full)]
    return {
        "command": shlex.join(command),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "launched": f"{_user()}@{platform.node()}:{Path.cwd()}" if full else None,
    }


def _user() -> str:
    """The user's name, or in a container that has none the number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _options(config: RunConfig, full: bool) -> Iterator[str]:
    """The options that are not what they would be unless given; folders of the machine's own are left out."""
    for each in fields(config):
        value, flag = getattr(config, each.name), each.metadata.get("flag")
        if not each.metadata or flag == "*" or value == each.default:
            continue
        if not full and each.name in ("outdir", "model_cache"):
            continue
        option = flag.split()[-1] if flag else f"--{each.name.replace('_', '-')}"
        named = value if isinstance(value, tuple) else (value,)
        files = is_local(value) if each.name == "model" else any(isinstance(one, Path) for one in named)
        whole = full or not files
        yield option if isinstance(value, bool) else f"{option}={_text(value, whole)}"


def _text(value: Any, full: bool) -> str:
    """A value as its option takes it, of a path its last part alone unless all is told."""
    if isinstance(value, tuple):
        return ",".join(_text(each, full) for each in value)
    return str(value) if full else str(value).rpartition("/")[2]
