"""Models by name: fetched from the hub into folders of their own, once for all who ask."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from virnucpro.errors import InputMissingError, ModelError, UsageError, VirnucproError
from virnucpro.model.checkpoint_files import CONFIG, HUB_PREFIX
from virnucpro.model.hub import HubModel
from virnucpro.model.hugging_face import hugging_face_config
from virnucpro.model.registry import MODELS, Esm2Config, hub_repository, look_up

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

#: What a repository of the hub that no revision is named of stands at.
_MAIN: Final = "main"
_REPOSITORY: Final = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_FILE_SUFFIXES: Final = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".json")
_REVISION: Final = re.compile(r"(?!.*\.\.)\w[\w./-]*", re.ASCII)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def is_local(name: str) -> bool:
    """Whether this means a file or folder rather than a registered name or a repository of the hub."""
    path = Path(name)
    return path.exists() or (os.sep in name and not is_repository(name)) or path.suffix in _FILE_SUFFIXES


def is_repository(name: str) -> bool:
    """Whether this has the form of a repository of the hub, ORG/NAME."""
    return bool(_REPOSITORY.fullmatch(name)) and not name.endswith(_FILE_SUFFIXES)


def cache_name(name: str) -> str:
    """The folder of a model in a folder of models: an official name is its own, a repository's is as in the hub's."""
    return f"{HUB_PREFIX}{name.replace('/', '--')}" if is_repository(name) else name


def as_given(path: Path) -> Path:
    """The path that a task's link to a model stands for, since messages name what the user knows."""
    target = path.parent / path.readlink() if path.is_symlink() else path
    return target if target.name == path.name else path


def fetch_model(name_or_path: str, destination: Path, revision: str | None = None) -> Path:
    """Make a model available and check it.

    A path is checked where it lies. A registered name becomes the folder ``destination``. A repository of the hub
    becomes ``destination/snapshots/COMMIT``, and ``destination/refs`` says which revision meant which commit: it goes
    on meaning it until another revision is asked for. Either appears only when it is whole, and once for all who ask
    for it at a time. A broken transfer resumes; a run that was ended half-way leaves its complete files to the next,
    not the one that was on its way.

    Args:
        name_or_path: registered name, repository of the hub, or the path of a checkpoint.
        destination: folder to make.
        revision: branch, tag or commit of the repository.

    Returns:
        the path of the checkpoint, for ``read_checkpoint``.

    Raises:
        InputMissingError: a path with nothing there.
        UsageError: a revision that cannot be one, or of what is no repository.
        ModelError: an unknown name, a hub that is not reached or lacks the model, no space, or a bad checkpoint.
    """
    repository = not is_local(name_or_path) and is_repository(name_or_path)
    if revision is not None and not repository:
        raise UsageError(f"--model_revision is {revision}, but {name_or_path} is no repository ORG/NAME of the hub")
    if revision is not None and not _REVISION.fullmatch(revision):
        raise UsageError(f"--model_revision is '{revision}', but must be a branch, tag or commit")
    if is_local(name_or_path):
        _check_path(Path(name_or_path))
        return Path(name_or_path)
    if repository:
        return _fetch_repository(HubModel(name_or_path, name_or_path, revision), Path(destination))
    return _fetch_official(look_up(name_or_path), Path(destination))


def _check_path(path: Path) -> None:
    if not path.exists():
        official = f"; the official model is --model {path.stem}" if path.stem in MODELS else ""
        raise InputMissingError(f"{path}: no such file or folder; check the path of the model{official}")
    from virnucpro.model.weights import read_checkpoint

    read_checkpoint(path)


def _fetch_official(config: Esm2Config, final: Path) -> Path:
    if not _is_filled(final):
        with _locked(final):
            if not _is_filled(final):
                partial = final.parent / f".{final.name}.partial"
                model = HubModel(config.name, hub_repository(config.name))
                _download(model, model.look_up(), partial)
                _discard_unless(partial, config)
                partial.rename(final)
    _require_whole(final, config.name, config)
    return final


def _fetch_repository(model: HubModel, root: Path) -> Path:
    kept = _snapshot(root, model.revision)
    if kept is None:
        with _locked(root):
            kept = _snapshot(root, model.revision) or _new_snapshot(model, root)
    _require_whole(kept, model.name, None)
    return kept


def _snapshot(root: Path, revision: str | None) -> Path | None:
    """The folder that holds a revision already."""
    reference = root / "refs" / (revision or _MAIN)
    commit = revision if revision and _COMMIT.fullmatch(revision) else None
    if commit is None and reference.is_file():
        commit = reference.read_text(errors="replace").strip()
    folder = root / "snapshots" / commit if commit else None
    return folder if folder is not None and (folder / CONFIG).exists() else None


def _new_snapshot(model: HubModel, root: Path) -> Path:
    info = model.look_up()
    commit = str(info.sha)
    folder = root / "snapshots" / commit
    if not folder.exists():
        partial = root.parent / f".{root.name}.{commit}.partial"
        _download(model, info, partial)
        _discard_unless(partial, None)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(folder)
    reference = root / "refs" / (model.revision or _MAIN)
    reference.parent.mkdir(parents=True, exist_ok=True)
    written = root / ".ref"
    written.write_text(commit)
    written.rename(reference)
    return folder


def _download(model: HubModel, info: ModelInfo, partial: Path) -> None:
    """Settings first: a model that cannot run here costs no download of its weights."""
    partial.mkdir(parents=True, exist_ok=True)
    # The hub's client begins a file anew; what a killed run had of one would only fill the disk.
    for half in partial.rglob("*.incomplete"):
        half.unlink()
    commit, offered = str(info.sha), info.siblings or []
    files = model.files_to_fetch(offered)
    model.download(partial, commit, [file for file in files if file.rfilename == CONFIG])
    try:
        hugging_face_config(partial / CONFIG, model.name, model.repository)
    except VirnucproError:
        shutil.rmtree(partial)
        raise
    model.download(partial, commit, files)
    shutil.rmtree(partial / ".cache", ignore_errors=True)


def _is_filled(folder: Path) -> bool:
    """Whether something is there already; an empty folder gives way to the model."""
    return folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """For one at a time, so that runs that share a folder fetch a model once."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # imported there, not re-exported

    folder.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(folder.parent / f".{folder.name}.lock"):
        yield


def _discard_unless(partial: Path, config: Esm2Config | None) -> None:
    """Remove what arrived unless it is a whole model, of these sizes where it has to be."""
    try:
        _check_sizes(partial, config)
    except VirnucproError:
        shutil.rmtree(partial)
        raise


def _require_whole(folder: Path, name: str, config: Esm2Config | None) -> None:
    try:
        _check_sizes(folder, config)
    except VirnucproError as error:
        raise ModelError(f"{folder} is not a whole {name} ({error}); remove it, and the next run fetches it") from error


def _check_sizes(path: Path, config: Esm2Config | None) -> None:
    from virnucpro.model.weights import read_checkpoint

    found, _, _ = read_checkpoint(path)
    expected = config or found
    sizes = [(model.layers, model.embed_dim, model.heads) for model in (found, expected)]
    if sizes[0] != sizes[1]:
        raise ModelError(
            f"{path}: layers, width and heads are {sizes[0]}, but {expected.name} has {sizes[1]}; remove it"
        )
