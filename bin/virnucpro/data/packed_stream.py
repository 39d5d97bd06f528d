"""The dataset that a loader's workers run: a stream of records in, finished batches out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from virnucpro.data.cuda_isolation import require_cuda_hidden
from virnucpro.data.packing import Item, pack
from virnucpro.errors import OutputError, VirnucproError

Collate = Callable[[list[Item]], Any]


@runtime_checkable
class Unsharded(Protocol):
    """A dataset that can yield all of its items in every worker, in the same order."""

    def unsharded(self) -> Iterator[Item]:
        """Yield every item, whichever worker asks."""


@dataclass(frozen=True)
class WorkerFailure:
    """One of our own errors on its way to the consumer, where :meth:`error` is raised.

    torch re-raises a worker's exception with the traceback as its message, and as RuntimeError where the class takes
    more than a message; that would lose the one line and the exit code that our errors promise.
    """

    kind: type[VirnucproError]
    arguments: tuple[Any, ...]
    attributes: dict[str, Any]

    @classmethod
    def of(cls, error: VirnucproError) -> WorkerFailure:
        """Take an error apart into what pickles."""
        return cls(type(error), error.args, dict(vars(error)))

    def error(self) -> VirnucproError:
        """Return the error as it was raised, without running its constructor a second time."""
        error = self.kind.__new__(self.kind, *self.arguments)
        vars(error).update(self.attributes)
        return error


class PackedStream(IterableDataset[Any]):
    """Packs a dataset by the token budget and collates each pack, all inside ``__iter__``: no state outlives it.

    Where the dataset has an unsharded stream, or indices, the packs are planned: every worker cuts the same packs
    and collates only each n-th, and as a DataLoader takes from its workers in turn, batches come in the same order
    and with the same content for any number of workers. Any other iterable dataset must share out its items among
    the workers itself, and each worker packs what it gets.

    Args:
        dataset: an iterable or indexed dataset of mappings with 'id' and 'sequence'.
        collate: makes a batch of a pack; the budget counts longer sequences in its ``windows``, if it has any.
        budget: tokens per pack; None for no limit.
        max_sequences: sequences per pack; None for no limit.
    """

    def __init__(
        self, dataset: Dataset[Any], collate: Collate, budget: int | None, max_sequences: int | None = None
    ) -> None:
        super().__init__()
        if budget is None and max_sequences is None:
            raise ValueError("neither a token budget nor batch_size limits a batch; give one of them")
        self.dataset = dataset
        self.collate = collate
        self.budget = budget
        self.max_sequences = max_sequences

    def __iter__(self) -> Iterator[Any]:
        """Yield this worker's batches; an error of ours comes as a WorkerFailure in the place of its pack.

        Raises:
            RuntimeError: this is a worker and CUDA is visible or initialised in it.
        """
        worker = get_worker_info()
        if worker is not None:
            require_cuda_hidden()
        try:
            items = _unsharded(self.dataset)
            if items is None:
                packs = self._packs(cast("Iterable[Item]", self.dataset))
            elif worker is None:
                packs = self._packs(items)
            else:
                packs = islice(self._packs(items), worker.id, None, worker.num_workers)
            batches = map(self.collate, packs)
            yield from batches if worker is None else map(_shared, batches)
        except VirnucproError as error:
            yield WorkerFailure.of(error)

    def _packs(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        return pack(items, self.budget, self.max_sequences, getattr(self.collate, "windows", None))


def _shared(batch: Any) -> Any:
    """The batch with its tensors in shared memory, where they go to the consumer.

    The thread that sends them would move them as well, but drops what does not fit, and the consumer would wait.

    Raises:
        OutputError: they do not fit.
    """
    try:
        for value in batch.values() if isinstance(batch, dict) else ():
            if isinstance(value, torch.Tensor):
                value.share_memory_()
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        raise OutputError(
            "/dev/shm: no room for a batch; free it, or make it larger, as --shm-size of a container does"
        ) from error
    return batch


def _unsharded(dataset: Dataset[Any]) -> Iterator[Item] | None:
    if isinstance(dataset, Unsharded):
        return dataset.unsharded()
    if isinstance(dataset, IterableDataset):
        return None
    indexed = cast("Sequence[Item]", dataset)
    return (indexed[index] for index in range(len(indexed)))
