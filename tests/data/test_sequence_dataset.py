from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import worker as torch_worker
from worker_datasets import ids_of

from virnucpro.data import SequenceDataset
from virnucpro.data.dataloader_utils import CudaHiddenSpawnContext, cuda_safe_worker_init
from virnucpro.errors import FastaFormatError, InputMissingError, UsageError

RECORDS = [("a", "MKTAYIAK"), ("b", "VLSPADKTNV"), ("a", "MKTAYIAK"), ("c", "GG"), ("d", "WWW")]


@pytest.fixture
def as_worker(monkeypatch: pytest.MonkeyPatch):
    """Pretend to be a worker of a DataLoader: ``as_worker(id, of)``."""

    def pretend(worker_id: int, of: int) -> None:
        info = torch_worker.WorkerInfo(id=worker_id, num_workers=of, seed=0, dataset=None)
        monkeypatch.setattr(torch_worker, "_worker_info", info)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return pretend


def test_items_carry_id_sequence_and_file(write_fasta) -> None:
    path = write_fasta(RECORDS)
    items = list(SequenceDataset([path]))
    assert items == [{"id": name, "sequence": sequence, "file": str(path)} for name, sequence in RECORDS]


def test_files_follow_each_other_in_the_order_given(write_fasta) -> None:
    first, second = write_fasta(RECORDS[:2], "z.fasta"), write_fasta(RECORDS[2:], "a.fasta")
    assert [item["id"] for item in SequenceDataset([first, str(second)])] == ["a", "b", "a", "c", "d"]
    assert [item["id"] for item in SequenceDataset(first)] == ["a", "b"]


@pytest.mark.parametrize(("gaps", "sequence"), [("remove", "MKVL"), ("unknown", "MXKVL")])
def test_records_are_read_by_the_rules_of_the_split(tmp_path: Path, gaps: str, sequence: str) -> None:
    path = tmp_path / "input.fasta"
    path.write_bytes(b"# by hand\n> a b\r\nM-K\r\n;c >d\nVL.\n>\nMK")
    dataset = SequenceDataset([path], gaps=gaps)
    assert [(item["id"], item["sequence"]) for item in dataset] == [("a", sequence), ("", "MK")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b">a\nMKV\n>b\rMKTLLV\r>c\nMAAA\n", "line 3: a carriage return that no line feed follows"),
        (b">a\nMKV>b\nMAAA\n", "line 2: '>' inside a sequence line"),
        (b">a\nMKV\n>\nM-K\n", "line 3: a record without id: gap '-' in the sequence"),
    ],
)
def test_what_the_split_refuses_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "input.fasta"
    path.write_bytes(text)
    with pytest.raises(FastaFormatError, match=f"input.fasta, {message}"):
        list(SequenceDataset([path], gaps="reject"))
    with pytest.raises(ValueError, match="gaps is 'keep', but must be one of remove, unknown, reject"):
        SequenceDataset([path], gaps="keep")


@pytest.mark.parametrize(("max_length", "expected"), [(1, 1), (7, 7), (8, 8), (9, 8), (1024, 8), (None, 8)])
def test_sequences_are_cut_to_max_length(write_fasta, max_length: int | None, expected: int) -> None:
    (item,) = SequenceDataset([write_fasta([("a", "MKTAYIAK")])], max_length=max_length)
    assert item["sequence"] == "MKTAYIAK"[:expected]


def test_the_default_keeps_1024_residues(write_fasta) -> None:
    (item,) = SequenceDataset([write_fasta([("a", "M" * 1025)])])
    assert len(item["sequence"]) == 1024


def test_it_can_be_iterated_again(write_fasta) -> None:
    dataset = SequenceDataset([write_fasta(RECORDS)])
    assert list(dataset) == list(dataset) and len(list(dataset)) == 5


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 7])
def test_workers_share_out_the_sequences(write_fasta, as_worker, workers: int) -> None:
    dataset = SequenceDataset([write_fasta(RECORDS)])
    shares = []
    for worker in range(workers):
        as_worker(worker, workers)
        shares.append([(item["id"], item["sequence"]) for item in dataset])
        assert [(item["id"], item["sequence"]) for item in dataset.unsharded()] == RECORDS
    assert sorted(pair for share in shares for pair in share) == sorted(RECORDS)


def test_a_worker_that_sees_a_gpu_is_refused(write_fasta, as_worker, monkeypatch) -> None:
    dataset = SequenceDataset([write_fasta(RECORDS)])
    as_worker(0, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(RuntimeError, match="CUDA_VISIBLE_DEVICES is '0,1', not empty"):
        next(iter(dataset))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(RuntimeError, match="CUDA_VISIBLE_DEVICES is unset"):
        next(iter(dataset))


def test_a_worker_that_opened_cuda_is_refused(write_fasta, as_worker, monkeypatch) -> None:
    as_worker(0, 1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(RuntimeError, match="CUDA is initialised in a data worker"):
        next(iter(SequenceDataset([write_fasta(RECORDS)])))


def test_a_plain_dataloader_yields_each_sequence_once(write_fasta) -> None:
    loader = DataLoader(
        SequenceDataset([write_fasta(RECORDS)]),
        batch_size=2,
        num_workers=2,
        collate_fn=ids_of,
        worker_init_fn=cuda_safe_worker_init,
        multiprocessing_context=CudaHiddenSpawnContext(),
        timeout=120,
    )
    got = [(item["id"], item["sequence"]) for batch in loader for item in batch]
    assert sorted(got) == sorted(RECORDS)


def test_pickle_round_trip(write_fasta) -> None:
    dataset = pickle.loads(pickle.dumps(SequenceDataset([write_fasta(RECORDS)], max_length=3)))
    assert [item["sequence"] for item in dataset] == [sequence[:3] for _, sequence in RECORDS]


def test_what_cannot_be_read_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="no FASTA file"):
        SequenceDataset([])
    with pytest.raises(UsageError, match="standard input"):
        SequenceDataset(["-"])
    with pytest.raises(ValueError, match="max_length is 0"):
        SequenceDataset(["a.fasta"], max_length=0)


def test_errors_of_the_reader_come_out(write_fasta, tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        list(SequenceDataset([tmp_path / "absent.fasta"]))
    with pytest.raises(FastaFormatError, match="line 3"):
        list(SequenceDataset([write_fasta([("a", "MK"), ("b", "M1K")])]))
