"""The loader that keeps packed batches ready while the GPU computes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from virnucpro.data.cuda_isolation import (
    WORKER_ENVIRONMENT,
    CudaHiddenSpawnContext,
    in_worker,
    require_cuda_hidden,
)
from virnucpro.data.lost_workers import remember, reporting_lost_workers
from virnucpro.data.packed_stream import Collate, PackedStream, WorkerFailure


def cuda_safe_worker_init(worker_id: int) -> None:
    """Hide CUDA from a worker, silence the tokenizers library's threads, and seed numpy by the worker's number.

    Outside of a worker (as a test may call it) only the environment and the seed are set.

    Raises:
        RuntimeError: in a worker, CUDA is already initialised.
    """
    for name in ("CUDA_VISIBLE_DEVICES", "TOKENIZERS_PARALLELISM"):
        os.environ[name] = WORKER_ENVIRONMENT[name]
    np.random.seed(worker_id)
    if in_worker():
        require_cuda_hidden()


class AsyncDataLoader(DataLoader[Any]):
    """A DataLoader of finished batches, in which a worker's error comes out as the error that it is."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Start the workers, which begin to prefetch at once, and return the batches."""
        return _Batches(super().__iter__())


class _Batches(Iterator[Any]):
    def __init__(self, batches: Iterator[Any]) -> None:
        remember(batches)
        self._batches = batches

    def __next__(self) -> Any:
        with reporting_lost_workers():
            batch = next(self._batches)
        if isinstance(batch, WorkerFailure):
            raise batch.error()
        return batch


def create_async_dataloader(
    dataset: Dataset[Any],
    collate_fn: Collate,
    batch_size: int | None = None,
    num_workers: int = 4,
    prefetch_factor: int = 4,
    pin_memory: bool = True,
    timeout: float = 600.0,
) -> AsyncDataLoader:
    """Return a loader whose spawned, persistent workers pack and tokenise ahead of the consumer.

    No sequence is lost or repeated, and for a SequenceDataset the batches are the same, in the same order, for any
    number of workers (see :class:`PackedStream`). What exceeds the budget goes to the next batch; a sequence over
    the budget stands alone.

    Args:
        dataset: SequenceDataset, or any dataset of mappings with 'id' and 'sequence'.
        collate_fn: makes a batch of a list of items; the token budget is its ``max_tokens``, if it has one.
        batch_size: most sequences of a batch; None for as many as the budget holds.
        num_workers: worker processes, at least 1.
        prefetch_factor: batches that each worker keeps ready, at least 1.
        pin_memory: put batches into page-locked memory; without effect where there is no CUDA.
        timeout: seconds to wait for a batch before TryAgainError; 0 waits for ever.

    Raises:
        ValueError: an argument out of range, or neither ``batch_size`` nor ``max_tokens`` to limit a batch.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}, but batches are prefetched by at least 1 worker")
    if prefetch_factor < 1:
        raise ValueError(f"prefetch_factor is {prefetch_factor}, but must be at least 1")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but must be at least 1, or None for what the budget holds")
    budget = getattr(collate_fn, "max_tokens", None)
    return AsyncDataLoader(
        PackedStream(dataset, collate_fn, budget, batch_size),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        prefetch_factor=prefetch_factor,
        pin_memory=pin_memory and torch.cuda.is_available(),
        timeout=timeout,
        worker_init_fn=cuda_safe_worker_init,
        multiprocessing_context=CudaHiddenSpawnContext(),
        persistent_workers=True,
    )


def create_in_process_dataloader(
    dataset: Dataset[Any], collate_fn: Collate, pin_memory: bool = True
) -> AsyncDataLoader:
    """Return a loader of the same batches, in the same order, that makes each when it is asked for it.

    Workers take seconds to start, in which this makes a hundred million tokens. Arguments and errors are as above.
    """
    return AsyncDataLoader(
        PackedStream(dataset, collate_fn, getattr(collate_fn, "max_tokens", None)),
        batch_size=None,
        collate_fn=_as_it_is,
        pin_memory=pin_memory and torch.cuda.is_available(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch
