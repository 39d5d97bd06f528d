"""Models from the Hugging Face hub, or any mirror that ``HF_ENDPOINT`` names, into a folder of their own."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from virnucpro.errors import InputMissingError, ModelError, VirnucproError
from virnucpro.model.registry import MODELS, Esm2Config, hub_repository, look_up

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

_Answer = TypeVar("_Answer")


def is_local(name_or_path: str) -> bool:
    """Whether this means a file or folder rather than a registered name."""
    path = Path(name_or_path)
    return path.exists() or os.sep in name_or_path or path.suffix in (".pt", ".bin", ".safetensors")


def as_given(path: Path) -> Path:
    """The path that a task's link to a model stands for, since messages name what the user knows."""
    target = path.parent / path.readlink() if path.is_symlink() else path
    return target if target.name == path.name else path


def fetch_model(name_or_path: str, destination: Path) -> Path:
    """Make a model available and check it.

    A path is checked where it lies. A registered name becomes the folder ``destination``, which appears only when it
    is whole, and once for all who ask for it at a time. A broken transfer resumes; a run that was ended half-way
    leaves its complete files to the next, not the one that was on its way.

    Args:
        name_or_path: registered name, or the path of a checkpoint.
        destination: folder to make.

    Returns:
        the path of the checkpoint, for ``read_checkpoint``.

    Raises:
        InputMissingError: a path with nothing there.
        ModelError: an unknown name, a hub that is not reached or lacks the model, no space, or a bad checkpoint.
    """
    if is_local(name_or_path):
        _check_path(Path(name_or_path))
        return Path(name_or_path)
    config = look_up(name_or_path)
    destination = Path(destination)
    if not _is_filled(destination):
        _download_once(config, destination)
    try:
        _check_sizes(destination, config)
    except VirnucproError as error:
        raise ModelError(
            f"{destination} is not a whole {config.name} ({error}); remove it, and the next run fetches it"
        ) from error
    return destination


def _check_path(path: Path) -> None:
    if not path.exists():
        official = f"; the official model is --model {path.name}" if path.name in MODELS else ""
        raise InputMissingError(f"{path}: no such file or folder; check the path of the model{official}")
    from virnucpro.model.weights import read_checkpoint

    read_checkpoint(path)


def _is_filled(folder: Path) -> bool:
    """Whether something is there already; an empty folder gives way to the model."""
    return folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None)


def _download_once(config: Esm2Config, final: Path) -> None:
    """Download under a lock, so that runs that share a folder fetch a model once."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # imported there, not re-exported

    final.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(final.parent / f".{final.name}.lock"):
        if _is_filled(final):
            return
        partial = final.parent / f".{final.name}.partial"
        partial.mkdir(exist_ok=True)
        # The hub's client begins a file anew; what a killed run had of one would only fill the disk.
        for half in partial.rglob("*.incomplete"):
            half.unlink()
        info = _ask_hub(config, lambda: _model_info(config))
        files = _files_to_fetch(config, info.siblings or [])
        _check_space(config, partial, files)
        _ask_hub(config, lambda: _download(config, partial, info.sha, files))
        try:
            _check_digests(config, partial, files)
            _check_sizes(partial, config)
        except VirnucproError:
            shutil.rmtree(partial)
            raise
        shutil.rmtree(partial / ".cache", ignore_errors=True)
        partial.rename(final)


def _endpoint() -> str:
    from huggingface_hub import constants

    # The hub's client reads the variable when imported; a caller may have set it since.
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT


def _model_info(config: Esm2Config) -> ModelInfo:
    from huggingface_hub import HfApi

    return HfApi(endpoint=_endpoint()).model_info(hub_repository(config.name), files_metadata=True, timeout=30)


def _download(config: Esm2Config, folder: Path, revision: str | None, files: Sequence[RepoSibling]) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    snapshot_download(
        hub_repository(config.name),
        revision=revision,
        local_dir=folder,
        allow_patterns=[file.rfilename for file in files],
        endpoint=_endpoint(),
    )


def _files_to_fetch(config: Esm2Config, offered: Sequence[RepoSibling]) -> list[RepoSibling]:
    """config.json and the weights in one format: safetensors where there are any, else PyTorch's."""
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        weights = [
            file
            for file in offered
            if file.rfilename.startswith(stem) and file.rfilename.endswith((suffix, f"{suffix}.index.json"))
        ]
        settings = [file for file in offered if file.rfilename == "config.json"]
        if weights and settings:
            return settings + weights
    raise ModelError(
        f"{_endpoint()} offers {hub_repository(config.name)} without config.json and weights; "
        "give the path of a model instead"
    )


def _check_space(config: Esm2Config, folder: Path, files: Sequence[RepoSibling]) -> None:
    missing = sum(file.size or 0 for file in files if not (folder / file.rfilename).exists())
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise ModelError(
            f"{folder.parent}: {config.name} takes {missing / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; "
            "make room or choose another --model_cache"
        )


def _check_digests(config: Esm2Config, folder: Path, files: Sequence[RepoSibling]) -> None:
    from virnucpro.model.describe import file_sha256

    for file in files:
        if file.lfs is not None and file_sha256(folder / file.rfilename) != file.lfs.sha256:
            raise ModelError(f"{config.name}: {file.rfilename} arrived damaged (its SHA-256 differs); run again")


def _check_sizes(path: Path, config: Esm2Config) -> None:
    from virnucpro.model.weights import read_checkpoint

    found, _, _ = read_checkpoint(path)
    sizes = [(model.layers, model.embed_dim, model.heads) for model in (found, config)]
    if sizes[0] != sizes[1]:
        raise ModelError(f"{path}: layers, width and heads are {sizes[0]}, but {config.name} has {sizes[1]}; remove it")


def _ask_hub(config: Esm2Config, request: Callable[[], _Answer]) -> _Answer:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    where = f"{config.name} cannot be had from {_endpoint()}"
    instead = "download it elsewhere and give its path"
    try:
        return request()
    except RepositoryNotFoundError as error:
        raise ModelError(f"{where}: no {hub_repository(config.name)} there; check HF_ENDPOINT, or {instead}") from error
    except OfflineModeIsEnabled as error:
        raise ModelError(f"{where}: HF_HUB_OFFLINE is set; unset it, or {instead}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise ModelError(f"{where}: it answers with status {status}; try again later, or {instead}") from error
    except Exception as error:  # the hub's client lets the errors of its transport through as they are
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelError(f"{where}: no space left; make room or choose another --model_cache") from error
        if isinstance(error, PermissionError):
            raise
        raise ModelError(f"{where}: {_first_line(error)}; check the network, or {instead}") from error


def _first_line(error: Any) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
