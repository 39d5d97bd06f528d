"""Descriptions kept from run to run, so that a checkpoint that has not changed is neither read nor hashed again.

A checkpoint is known again by each file's real path, size, inode and both of its times. The time of the last change of
an inode (ctime) cannot be set by who writes a file, so that no change goes unseen, not even of the same size and with
its old modification time. What changed a moment ago is not kept: a second change may leave times as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from virnucpro import unfinished
from virnucpro.errors import VirnucproError
from virnucpro.file_identity import digest_of_code, identity_of
from virnucpro.model.checkpoint_files import CheckpointFiles, locate
from virnucpro.output.contracts import ModelDescription

#: File systems count time in steps of up to two seconds.
YOUNG_SECONDS: Final = 2.0


def describe_once(path: Path) -> ModelDescription:
    """As ``describe_model``, with its errors; from what was kept of an earlier run where nothing has changed since."""
    files = locate(path)
    found, kept = _identity(files), _place(files)
    with suppress(VirnucproError, OSError):
        return ModelDescription.read(kept)
    from virnucpro.model.describe import describe_model

    described = describe_model(path)
    if _identity(files) == found and not _young(files):
        _keep(described, kept)
    return described


def kept_description(files: CheckpointFiles) -> ModelDescription | None:
    """What was kept of an earlier run of a checkpoint that has not changed since, if anything."""
    with suppress(VirnucproError, OSError):
        return ModelDescription.read(_place(files))
    return None


def _place(files: CheckpointFiles) -> Path:
    key = hashlib.sha256(json.dumps([files.name, files.revision, _identity(files), _sources()]).encode()).hexdigest()
    # A task's XDG_CACHE_HOME is its own folder; what is kept between runs lies beside the models.
    return Path(os.environ.get("HOME") or os.devnull) / ".cache" / "virnucpro" / "descriptions" / f"{key}.json"


def _paths(files: CheckpointFiles) -> list[Path]:
    return [*files.weights, *([files.config] if files.config else [])]


def _identity(files: CheckpointFiles) -> list[list[int | str]]:
    return [[str(path.resolve()), *identity_of(path.stat())] for path in _paths(files)]


def _young(files: CheckpointFiles) -> bool:
    newest = max(max(each.st_mtime, each.st_ctime) for each in (path.stat() for path in _paths(files)))
    return newest > time.time() - YOUNG_SECONDS


def _sources() -> str:
    """Digest of the code that describes: what an older version found is not asked for."""
    return digest_of_code(Path(__file__).parent)


def _keep(described: ModelDescription, kept: Path) -> None:
    """A home that cannot be written to costs the next run the time that it saves this one: no reason to say so."""
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        written = unfinished.begin(kept.with_name(f".{secrets.token_hex(4)}.partial"))
        try:
            described.write(written)
            written.replace(kept)
        finally:
            written.unlink(missing_ok=True)
            unfinished.end(written)
