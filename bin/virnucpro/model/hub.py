"""The Hugging Face hub, or any mirror that ``HF_ENDPOINT`` names: what it holds of a model, and how it is asked."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from virnucpro.errors import ModelError, VirnucproError
from virnucpro.model.checkpoint_files import ADAPTER_CONFIG, CONFIG

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

_Answer = TypeVar("_Answer")

_INSTEAD: Final = "download it elsewhere and give its path"
#: Weights in the order in which they are looked for: in one file, or in parts with their index.
_WEIGHTS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"model\.safetensors",
        r"model(-\d{5}-of-\d{5}\.safetensors|\.safetensors\.index\.json)",
        r"pytorch_model\.bin",
        r"pytorch_model(-\d{5}-of-\d{5}\.bin|\.bin\.index\.json)",
    )
)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model on the hub.

    Args:
        name: what the user asked for.
        repository: ORG/NAME.
        revision: a branch, a tag or a commit; the hub's own choice unless given.
    """

    name: str
    repository: str
    revision: str | None = None

    @property
    def is_official(self) -> bool:
        """Whether it was asked for by a name of the registry, of which only the hub may be without a repository."""
        return self.name != self.repository

    def look_up(self) -> ModelInfo:
        """Files and commit of the revision; ModelError where there is none."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=endpoint())
        return self._ask(
            lambda: api.model_info(self.repository, revision=self.revision, files_metadata=True, timeout=30)
        )

    def files_to_fetch(self, offered: Sequence[RepoSibling]) -> list[RepoSibling]:
        """config.json and the weights in one format: safetensors where there are any, else PyTorch's.

        Raises:
            ModelError: there are none; the message says what is there instead, where that is known.
        """
        names = [file.rfilename for file in offered]
        settings = [file for file in offered if file.rfilename == CONFIG]
        weights = (
            [file for file in offered if pattern.fullmatch(file.rfilename)] for pattern in _WEIGHTS if CONFIG in names
        )
        if found := next(filter(None, weights), None):
            return settings + found
        if ADAPTER_CONFIG in names:
            raise ModelError(
                f"{self.repository}: a PEFT adapter, not a whole model; merge it into its base first, with "
                "merge_and_unload() and save_pretrained(), and give the path of what that writes"
            )
        others = [name for name in names if name.endswith((".pt", ".ckpt", ".pth"))]
        instead = f"download {others[0]} and give its path" if others else "give the path of a model instead"
        raise ModelError(f"{endpoint()} offers {self.repository} without config.json and weights; {instead}")

    def download(self, folder: Path, commit: str, files: Sequence[RepoSibling]) -> None:
        """Bring files of a commit into ``folder``; those that are there already stay.

        Raises:
            ModelError: the hub is not reached, no space, or a file arrived damaged.
        """
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not sys.stderr.isatty():
            disable_progress_bars()
        self._check_space(folder, files)
        self._ask(
            lambda: snapshot_download(
                self.repository,
                revision=commit,
                local_dir=folder,
                allow_patterns=[file.rfilename for file in files],
                endpoint=endpoint(),
            )
        )
        self._check_digests(folder, files)

    def _check_space(self, folder: Path, files: Sequence[RepoSibling]) -> None:
        missing = sum(file.size or 0 for file in files if not (folder / file.rfilename).exists())
        free = shutil.disk_usage(folder).free
        if missing > free:
            raise ModelError(
                f"{folder.parent}: {self.name} takes {missing / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; "
                "make room or choose another --model_cache"
            )

    def _check_digests(self, folder: Path, files: Sequence[RepoSibling]) -> None:
        from virnucpro.model.describe import arrived_whole

        for file in files:
            if file.lfs is not None and not arrived_whole(folder / file.rfilename, file.lfs.sha256):
                shutil.rmtree(folder)
                raise ModelError(f"{self.name}: {file.rfilename} arrived damaged (its SHA-256 differs); run again")

    def _ask(self, request: Callable[[], _Answer]) -> _Answer:
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        where = f"{self.name} cannot be had from {endpoint()}"
        if not self.is_official:
            where = f"no such file or folder, and {self.name} cannot be had from {endpoint()}"
        try:
            return request()
        except OfflineModeIsEnabled as error:
            raise ModelError(f"{where}: HF_HUB_OFFLINE is set; unset it, or {_INSTEAD}") from error
        except HfHubHTTPError as error:
            raise ModelError(f"{where}: {self._refusal(error)}, or {_INSTEAD}") from error
        except VirnucproError:
            raise
        except Exception as error:  # the hub's client lets the errors of its transport through as they are
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ModelError(f"{where}: no space left; make room or choose another --model_cache") from error
            if isinstance(error, PermissionError):
                raise
            raise ModelError(f"{where}: {_first_line(error)}; check the network, or {_INSTEAD}") from error

    def _refusal(self, error: Any) -> str:
        """What the hub's answer means, and what to do."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        if isinstance(error, GatedRepoError):
            return "its owners give access on request; ask them on its page and set HF_TOKEN"
        if isinstance(error, RepositoryNotFoundError) and self.is_official:
            return f"no {self.repository} there; check HF_ENDPOINT"
        if isinstance(error, RepositoryNotFoundError):
            return "no such repository there, or a private one; check the name, set HF_TOKEN"
        if isinstance(error, RevisionNotFoundError):
            return f"no revision {self.revision} there; check --model_revision"
        return f"it answers with status {error.response.status_code}; try again later"


def endpoint() -> str:
    """The address of the hub."""
    from huggingface_hub import constants

    # The hub's client reads the variable when imported; a caller may have set it since.
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT


def _first_line(error: Any) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
