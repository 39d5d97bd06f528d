"""The packing of a loader without its processes: workers are pretended, so that the whole matrix costs nothing."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import pytest
from torch.utils.data import Dataset
from torch.utils.data._utils import worker as torch_worker
from worker_datasets import Items, OwnShare, ids_of

from virnucpro.data import VarlenCollator
from virnucpro.data.packed_stream import PackedStream, WorkerFailure
from virnucpro.errors import DataError, FastaFormatError, InputMissingError, VirnucproError

BUDGET = 100
WORKERS = [1, 2, 3, 4, 5]
# 100 tokens hold exactly 5 sequences of 18 residues.
COUNTS = [0, 1, 2, 3, 4, 5, 6, 7, 13, 24, 25, 26, 97]


def run_as_loader(stream: PackedStream, workers: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a DataLoader of so many workers would yield: their batches in turn, until all have ended."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    shares = []
    for worker in range(workers):
        info = torch_worker.WorkerInfo(id=worker, num_workers=workers, seed=0, dataset=stream)
        monkeypatch.setattr(torch_worker, "_worker_info", info)
        shares.append(list(pickle.loads(pickle.dumps(stream))))
    monkeypatch.setattr(torch_worker, "_worker_info", None)
    rounds = max(map(len, shares))
    return [share[turn] for turn in range(rounds) for share in shares if turn < len(share)]


def items_of(lengths: list[int]) -> list[dict[str, str]]:
    return [{"id": f"s{index}", "sequence": "ACDEFGH"[index % 7] * length} for index, length in enumerate(lengths)]


def content(batches: list[dict[str, Any]]) -> list[tuple[list[str], list[int], list[int]]]:
    return [(one["sequence_ids"], one["input_ids"].tolist(), one["cu_seqlens"].tolist()) for one in batches]


def varied(count: int) -> list[int]:
    return [1 + (index * 37) % 60 for index in range(count)]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("lengths", ["equal", "varied", "over-budget"])
def test_nothing_is_lost_or_repeated(monkeypatch, workers: int, count: int, lengths: str) -> None:
    items = items_of({"equal": [18] * count, "varied": varied(count), "over-budget": [150, 10][:2] * count}[lengths])
    collator = VarlenCollator(max_tokens=BUDGET)
    batches = run_as_loader(PackedStream(Items(items), collator, BUDGET), workers, monkeypatch)
    assert content(batches) == content(list(collator.pack(items)))
    ids = Counter(name for batch in batches for name in batch["sequence_ids"])
    assert ids == Counter(item["id"] for item in items)
    for batch in batches:
        assert len(batch["input_ids"]) <= BUDGET or batch["num_sequences"] == 1


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("count", COUNTS)
def test_a_dataset_that_shares_out_itself_loses_nothing(monkeypatch, workers: int, count: int) -> None:
    items = items_of(varied(count))
    stream = PackedStream(OwnShare(items), VarlenCollator(max_tokens=BUDGET), BUDGET, 3)
    batches = run_as_loader(stream, workers, monkeypatch)
    ids = [name for batch in batches for name in batch["sequence_ids"]]
    assert Counter(ids) == Counter(item["id"] for item in items)
    assert all(1 <= batch["num_sequences"] <= 3 for batch in batches)


class Indexed(Dataset[dict[str, str]]):
    def __init__(self, items: list[dict[str, str]]) -> None:
        self.items = items

    def __getitem__(self, index: int) -> dict[str, str]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


@pytest.mark.parametrize("workers", WORKERS)
def test_an_indexed_dataset_is_planned(monkeypatch, workers: int) -> None:
    items = items_of(varied(26))
    collator = VarlenCollator(max_tokens=BUDGET)
    batches = run_as_loader(PackedStream(Indexed(items), collator, BUDGET), workers, monkeypatch)
    assert content(batches) == content(list(collator.pack(items)))


@pytest.mark.parametrize("workers", WORKERS)
def test_equal_ids_are_kept(monkeypatch, workers: int) -> None:
    items = [{"id": "twin", "sequence": "MK" * length} for length in (3, 3, 9, 3)] * 5
    batches = run_as_loader(PackedStream(Items(items), VarlenCollator(), 30), workers, monkeypatch)
    assert sum(batch["num_sequences"] for batch in batches) == 20
    assert {name for batch in batches for name in batch["sequence_ids"]} == {"twin"}


def test_outside_of_a_worker_it_yields_everything() -> None:
    batches = list(PackedStream(Items(items_of([5] * 7)), ids_of, None, 2))
    assert [len(batch) for batch in batches] == [2, 2, 2, 1]


class Failing(Items):
    def unsharded(self):
        yield from self.items
        raise FastaFormatError("symbol '7'", file="x.fasta", line=9, remedy="remove it")


@pytest.mark.parametrize("workers", WORKERS)
def test_an_error_comes_once_all_whole_packs_before_it_have_come(monkeypatch, workers: int) -> None:
    items = items_of([18] * 23)
    stream = PackedStream(Failing(items), VarlenCollator(), BUDGET)
    results = run_as_loader(stream, workers, monkeypatch)
    batches = results[:4]
    assert [name for batch in batches for name in batch["sequence_ids"]] == [f"s{index}" for index in range(20)]
    assert len(results) == 4 + workers
    for failure in results[4:]:
        error = failure.error()
        assert type(error) is FastaFormatError and (error.file, error.line, error.exit_code) == ("x.fasta", 9, 65)
        assert str(error) == "x.fasta, line 9: symbol '7'; remove it"


@pytest.mark.parametrize(
    "error",
    [
        DataError("what; where"),
        InputMissingError("gone"),
        FastaFormatError("not FASTA", file="f", remedy="give FASTA"),
        VirnucproError("any"),
    ],
)
def test_our_errors_survive_the_way_to_the_consumer(error: VirnucproError) -> None:
    again = pickle.loads(pickle.dumps(WorkerFailure.of(error))).error()
    assert type(again) is type(error)
    assert (str(again), again.exit_code, vars(again)) == (str(error), error.exit_code, vars(error))


def test_a_worker_that_sees_cuda_is_refused(monkeypatch) -> None:
    info = torch_worker.WorkerInfo(id=0, num_workers=1, seed=0, dataset=None)
    monkeypatch.setattr(torch_worker, "_worker_info", info)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(RuntimeError, match="CUDA is visible"):
        next(iter(PackedStream(Items(items_of([5])), ids_of, BUDGET)))


def test_a_stream_without_any_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        PackedStream(Items([]), ids_of, None)
