"""Worker processes that never see a GPU: hidden before they start, checked while they run."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext
from typing import Final

import torch
from torch.utils.data import get_worker_info

from virnucpro.children import TiedSpawnProcess

#: Environment of a worker. One thread each: OpenBLAS starts its threads as numpy is imported, one per core.
WORKER_ENVIRONMENT: Final = {
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

_environment_lock = threading.Lock()


@contextmanager
def worker_environment() -> Iterator[None]:
    """Give this process the environment of a worker, for as long as a worker takes to inherit it (milliseconds).

    One thread at a time; what the process had before is restored. A thread that initialises CUDA in the meantime
    would find no GPU: start the loader first, or after the model is on its device.
    """
    with _environment_lock:
        before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
        os.environ.update(WORKER_ENVIRONMENT)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


class CudaHiddenProcess(TiedSpawnProcess):
    """A spawned process whose environment hides CUDA before its interpreter starts, and so before it imports torch."""

    def start(self) -> None:
        """Start the process; see :func:`worker_environment`."""
        with worker_environment():
            super().start()


class CudaHiddenSpawnContext(SpawnContext):
    """The spawn context, with processes that see no GPU.

    torch turns the name 'spawn' into a context object and keeps only that, so that a caller who asks whether
    ``loader.multiprocessing_context == 'spawn'`` would be told no. This context therefore equals the name of its
    start method, with the same hash, beside any other spawn context that hides CUDA.
    """

    Process = CudaHiddenProcess

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return other == self.get_start_method()
        return isinstance(other, CudaHiddenSpawnContext)

    def __hash__(self) -> int:
        return hash(self.get_start_method())


def in_worker() -> bool:
    """Return whether this is a worker process of a DataLoader."""
    return get_worker_info() is not None


def require_cuda_hidden() -> None:
    """Check, without asking CUDA anything, that this process neither sees a GPU nor has opened one.

    Raises:
        RuntimeError: CUDA_VISIBLE_DEVICES is not the empty string, or CUDA is initialised.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    remedy = "load through create_async_dataloader, or pass worker_init_fn=cuda_safe_worker_init"
    if visible != "":
        state = "unset" if visible is None else f"'{visible}'"
        raise RuntimeError(f"CUDA is visible in a data worker: CUDA_VISIBLE_DEVICES is {state}, not empty; {remedy}")
    if torch.cuda.is_initialized():
        raise RuntimeError(f"CUDA is initialised in a data worker, which must never open a GPU; {remedy}")
