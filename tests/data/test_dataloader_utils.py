"""The loader with real worker processes. They take seconds to start, so one loader serves most tests."""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worker_datasets import Items, OwnShare, WorkerReport, exit_at_once, fail_with_value_error, ids_of

from virnucpro.data import SequenceDataset, VarlenCollator, create_async_dataloader
from virnucpro.data.cuda_isolation import CudaHiddenProcess, CudaHiddenSpawnContext, worker_environment
from virnucpro.data.dataloader_utils import AsyncDataLoader, cuda_safe_worker_init
from virnucpro.errors import FastaFormatError, InputMissingError, TryAgainError

BUDGET = 100
COLLATOR = VarlenCollator(max_tokens=BUDGET)


def write(path: Path, items: list[dict[str, str]]) -> None:
    path.write_text("".join(f">{item['id']}\n{item['sequence']}\n" for item in items))


def items_of(lengths: list[int]) -> list[dict[str, str]]:
    return [{"id": f"s{index}", "sequence": "ACDEFGH"[index % 7] * length} for index, length in enumerate(lengths)]


def content(batches: list[dict[str, Any]]) -> list[tuple[list[str], list[int], list[int], int]]:
    return [
        (one["sequence_ids"], one["input_ids"].tolist(), one["cu_seqlens"].tolist(), one["max_seqlen"])
        for one in batches
    ]


@pytest.fixture(scope="module")
def rewritable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AsyncDataLoader, Path]]:
    """A loader of three persistent workers, and the file that they read anew on each iteration."""
    path = tmp_path_factory.mktemp("loader") / "input.fasta"
    path.write_text(">a\nM\n")
    loader = create_async_dataloader(SequenceDataset([path]), COLLATOR, num_workers=3, timeout=120)
    yield loader, path


@pytest.mark.parametrize(
    "lengths",
    [
        [7],
        [18] * 5,
        [18] * 6,
        [18] * 97,
        [1 + (index * 37) % 60 for index in range(101)],
        [150, 3, 150, 3, 3],
        [98],
        [99],
    ],
    ids=["one", "full-pack", "full-pack+1", "equal", "varied", "over-budget", "at-budget", "over-by-one"],
)
def test_batches_are_those_planned_all_of_them_in_order(rewritable, lengths: list[int]) -> None:
    loader, path = rewritable
    items = items_of(lengths)
    write(path, items)
    assert content(list(loader)) == content(list(COLLATOR.pack(items)))


def test_equal_ids_are_kept(rewritable) -> None:
    loader, path = rewritable
    items = [{"id": "twin", "sequence": "MK"}] * 31
    write(path, items)
    assert [name for batch in loader for name in batch["sequence_ids"]] == ["twin"] * 31


def test_an_iteration_broken_off_does_not_leak_into_the_next(rewritable) -> None:
    loader, path = rewritable
    write(path, items_of([18] * 97))
    assert next(iter(loader))["sequence_ids"][0] == "s0"
    items = items_of([20] * 11)
    write(path, items)
    assert content(list(loader)) == content(list(COLLATOR.pack(items)))


def test_a_fault_in_the_file_comes_out_as_it_would_without_workers(rewritable) -> None:
    loader, path = rewritable
    write(path, [*items_of([18] * 12), {"id": "bad", "sequence": "MK7"}])
    with pytest.raises(FastaFormatError) as expected:
        list(SequenceDataset([path]))
    seen: list[str] = []
    with pytest.raises(FastaFormatError) as caught:
        for batch in loader:
            seen += batch["sequence_ids"]
    assert str(caught.value) == str(expected.value) and "\n" not in str(caught.value)
    assert (caught.value.exit_code, caught.value.line) == (65, expected.value.line)
    assert seen == [f"s{index}" for index in range(10)]


def test_a_missing_file_comes_out_as_such_and_the_loader_lives_on(rewritable) -> None:
    loader, path = rewritable
    path.unlink()
    with pytest.raises(InputMissingError, match=path.name):
        list(loader)
    write(path, items_of([5]))
    assert [batch["sequence_ids"] for batch in loader] == [["s0"]]


def test_no_items_give_no_batches_and_shares_are_conserved() -> None:
    items = items_of([1 + (index * 37) % 60 for index in range(53)])
    assert list(create_async_dataloader(Items([]), COLLATOR, num_workers=1, timeout=120)) == []
    loader = create_async_dataloader(OwnShare(items), COLLATOR, batch_size=2, num_workers=2, timeout=120)
    for _ in range(2):
        batches = list(loader)
        assert sorted(name for batch in batches for name in batch["sequence_ids"]) == sorted(
            item["id"] for item in items
        )
        assert all(1 <= batch["num_sequences"] <= 2 for batch in batches)


def test_workers_start_without_cuda_and_without_heavy_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    loader = create_async_dataloader(WorkerReport(), ids_of, batch_size=1, num_workers=2, timeout=120)
    reports = [item for batch in loader for item in batch]
    assert sorted(report["worker"] for report in reports) == [0, 1]
    for report in reports:
        assert report["cuda_at_start"] == report["cuda_now"] == ""
        assert report["tokenizers"] == "false"
        assert (report["gpus"], report["initialized"], report["torch_threads"]) == (0, False, 1)
        assert report["random"] == np.random.RandomState(report["worker"]).randint(1 << 30)
        assert not {"esm", "triton", "pyarrow", "virnucpro.model", "virnucpro.kernels"} & set(report["modules"])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_a_worker_that_dies_is_an_error_to_try_again() -> None:
    loader = create_async_dataloader(Items(items_of([5])), exit_at_once, batch_size=1, num_workers=1, timeout=120)
    with pytest.raises(TryAgainError, match="data worker died"):
        list(loader)


def test_errors_not_ours_keep_torchs_report_of_them() -> None:
    loader = create_async_dataloader(
        Items(items_of([5])), fail_with_value_error, batch_size=1, num_workers=1, timeout=120
    )
    with pytest.raises(ValueError, match="not one of our errors"):
        list(loader)


def test_context_equals_the_name_of_its_start_method() -> None:
    context = CudaHiddenSpawnContext()
    assert context == "spawn" and context != "fork" and hash(context) == hash("spawn")
    assert context == CudaHiddenSpawnContext() and context != get_context("spawn")
    assert context.Process is CudaHiddenProcess


def test_the_environment_is_hidden_only_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    before = dict(os.environ)
    with pytest.raises(OSError, match="cannot start"), worker_environment():
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
        raise OSError("cannot start")
    assert dict(os.environ) == before


def test_two_threads_that_start_workers_restore_the_same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")

    def hide_often() -> None:
        for _ in range(200):
            with worker_environment():
                time.sleep(0)

    threads = [threading.Thread(target=hide_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_worker_init_in_the_main_process_only_sets_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    threads = torch.get_num_threads()
    cuda_safe_worker_init(5)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "" and os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert np.random.randint(1 << 30) == np.random.RandomState(5).randint(1 << 30)
    assert torch.get_num_threads() == threads


def test_worker_init_in_a_worker_refuses_an_open_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.data._utils import worker as torch_worker

    info = torch_worker.WorkerInfo(id=0, num_workers=1, seed=0, dataset=None)
    monkeypatch.setattr(torch_worker, "_worker_info", info)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(RuntimeError, match="CUDA is initialised"):
        cuda_safe_worker_init(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_workers": 0}, "num_workers is 0"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"prefetch_factor": 0}, "prefetch_factor is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_async_dataloader(Items([]), COLLATOR, **arguments)


def test_a_collator_without_a_budget_needs_a_batch_size() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        create_async_dataloader(Items([]), ids_of)


@pytest.mark.filterwarnings("error")
def test_pinning_follows_the_machine_without_a_warning() -> None:
    loader = create_async_dataloader(Items([]), COLLATOR, num_workers=1)
    assert loader.pin_memory is torch.cuda.is_available()
    assert create_async_dataloader(Items([]), COLLATOR, num_workers=1, pin_memory=False).pin_memory is False
    assert loader.persistent_workers and loader.multiprocessing_context == "spawn"


def test_defaults_are_the_interfaces() -> None:
    parameters = inspect.signature(create_async_dataloader).parameters
    assert {name: value.default for name, value in parameters.items() if value.default is not value.empty} == {
        "batch_size": None,
        "num_workers": 4,
        "prefetch_factor": 4,
        "pin_memory": True,
        "timeout": 600.0,
    }


@pytest.mark.gpu
def test_batches_arrive_in_page_locked_memory(rewritable) -> None:
    loader, path = rewritable
    items = items_of([18] * 26)
    write(path, items)
    batches = list(loader)
    assert batches and all(batch["input_ids"].is_pinned() for batch in batches)
    assert content(batches) == content(list(COLLATOR.pack(items)))
