from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch

from virnucpro.data import VarlenCollator
from virnucpro.data.packed_batch import PackedBatch


def batch_of(*lengths: int) -> PackedBatch:
    items = [{"id": f"s{index}", "sequence": "ACDE"[index % 4] * length} for index, length in enumerate(lengths)]
    return PackedBatch.from_dict(VarlenCollator()(items))


def assert_same(one: PackedBatch, other: PackedBatch) -> None:
    assert torch.equal(one.input_ids, other.input_ids)
    assert torch.equal(one.cu_seqlens, other.cu_seqlens)
    assert (one.max_seqlen, one.sequence_ids) == (other.max_seqlen, other.sequence_ids)


def test_positions_start_anew_at_each_cls() -> None:
    batch = batch_of(1, 3, 2)
    assert batch.positions.dtype == torch.int32
    assert batch.positions.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert batch.lengths.tolist() == [3, 5, 4]
    assert (batch.tokens, batch.num_sequences, batch.max_seqlen) == (12, 3, 5)


def test_dict_round_trip() -> None:
    batch = batch_of(4, 2)
    as_dict = batch.to_dict()
    assert as_dict["sequence_ids"] == ["s0", "s1"] and as_dict["num_sequences"] == 2
    assert_same(PackedBatch.from_dict(as_dict), batch)


def test_pickle_round_trip() -> None:
    assert_same(pickle.loads(pickle.dumps(batch_of(4, 2))), batch_of(4, 2))


def test_it_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch_of(3).max_seqlen = 1  # type: ignore[misc]


@pytest.mark.parametrize("lengths", [(1, 1), (10, 1, 1), (1, 1, 10), (5, 5, 5), (1022, 3), (7,) * 11])
def test_split_keeps_every_sequence_in_order(lengths: tuple[int, ...]) -> None:
    batch = batch_of(*lengths)
    first, second = batch.split()
    assert first.sequence_ids + second.sequence_ids == batch.sequence_ids
    assert torch.equal(torch.cat([first.input_ids, second.input_ids]), batch.input_ids)
    assert torch.equal(torch.cat([first.positions, second.positions]), batch.positions)
    for half in (first, second):
        assert half.num_sequences >= 1 and half.cu_seqlens[0] == 0 and half.cu_seqlens[-1] == half.tokens
        assert half.max_seqlen == int(half.lengths.max())


def test_split_is_nearest_to_half() -> None:
    first, second = batch_of(10, 10, 10, 10).split()
    assert first.tokens == second.tokens
    first, second = batch_of(100, 1, 1, 1).split()
    assert first.num_sequences == 1


def test_one_sequence_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="cannot be split"):
        batch_of(5).split()


def test_what_does_not_belong_together_is_refused() -> None:
    batch = batch_of(4, 2)
    with pytest.raises(ValueError, match="lacks cu_seqlens"):
        PackedBatch.from_dict({"input_ids": batch.input_ids, "max_seqlen": 6, "sequence_ids": ["a"]})
    with pytest.raises(ValueError, match=r"cu_seqlens must be int32 \(2,\)"):
        dataclasses.replace(batch, sequence_ids=("one",))
    with pytest.raises(ValueError, match="ends at 10, but the batch has 9 tokens"):
        dataclasses.replace(batch, input_ids=batch.input_ids[:-1])
    with pytest.raises(ValueError, match="input_ids must be int64"):
        dataclasses.replace(batch, input_ids=batch.input_ids.int())


@pytest.mark.gpu
def test_pin_memory() -> None:
    pinned = batch_of(4, 2).pin_memory()
    assert pinned.input_ids.is_pinned() and pinned.cu_seqlens.is_pinned()
    assert_same(pinned, batch_of(4, 2))
