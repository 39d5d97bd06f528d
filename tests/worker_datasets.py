"""Datasets and collators for worker processes, which import this module: it must stay as light as they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CUDA_VISIBLE_AS_THE_PROCESS_STARTED = os.environ.get("CUDA_VISIBLE_DEVICES")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import IterableDataset, get_worker_info  # noqa: E402


class Items(IterableDataset[dict[str, str]]):
    """Items in memory, with an unsharded stream."""

    def __init__(self, items: list[dict[str, str]]) -> None:
        self.items = items

    def unsharded(self) -> Iterator[dict[str, str]]:
        return iter(self.items)

    def __iter__(self) -> Iterator[dict[str, str]]:
        raise AssertionError("a planned stream reads unsharded()")


class OwnShare(IterableDataset[dict[str, str]]):
    """Items in memory that each worker shares out itself, without an unsharded stream."""

    def __init__(self, items: list[dict[str, str]]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[dict[str, str]]:
        worker = get_worker_info()
        return iter(self.items if worker is None else self.items[worker.id :: worker.num_workers])


class WorkerReport(IterableDataset[dict[str, Any]]):
    """One item per worker: what the worker sees of its surroundings."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        assert worker is not None
        yield {
            "worker": worker.id,
            "sequence": "M",
            "cuda_at_start": CUDA_VISIBLE_AS_THE_PROCESS_STARTED,
            "cuda_now": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "tokenizers": os.environ.get("TOKENIZERS_PARALLELISM"),
            "gpus": torch.cuda.device_count(),
            "initialized": torch.cuda.is_initialized(),
            "torch_threads": torch.get_num_threads(),
            "random": int(np.random.randint(1 << 30)),
            "modules": sorted(sys.modules),
        }


class LoggingCollator:
    """Writes a line to a file for each batch that a worker makes."""

    max_tokens = 100

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self, batch: list[dict[str, str]]) -> list[str]:
        with self.log.open("a") as file:
            file.write(f"{batch[0]['id']}\n")
        return [item["id"] for item in batch]


def ids_of(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Collate nothing."""
    return batch


def show_a_gpu(worker_id: int) -> None:
    """A worker_init_fn that undoes the isolation."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "0"


def open_cuda(worker_id: int) -> None:
    """A worker_init_fn that claims an open GPU, as a library imported in a worker might leave it."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.cuda.is_initialized = lambda: True  # type: ignore[assignment]


def exit_at_once(batch: list[dict[str, Any]]) -> Any:
    """Die as the kernel's memory killer makes a worker die: without a word."""
    os._exit(137)


def fail_with_value_error(batch: list[dict[str, Any]]) -> Any:
    raise ValueError("not one of our errors")
