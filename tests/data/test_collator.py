from __future__ import annotations

import pickle
from types import SimpleNamespace

import esm
import numpy as np
import pytest
import torch

from virnucpro.data import VarlenCollator
from virnucpro.errors import DataError

FAIR_ESM = esm.data.Alphabet.from_architecture("ESM-1b")
CONVERTERS = [None, FAIR_ESM.get_batch_converter()]


def items_of(sequences: list[str]) -> list[dict[str, str]]:
    return [{"id": f"s{index}", "sequence": sequence, "file": "f"} for index, sequence in enumerate(sequences)]


@pytest.mark.parametrize("converter", CONVERTERS, ids=["own", "fair-esm"])
def test_batch_equals_fair_esms_without_its_padding(converter, proteins) -> None:
    items = items_of(proteins([1, 8, 300, 8, 47]))
    batch = VarlenCollator(converter)(items)
    _, _, padded = FAIR_ESM.get_batch_converter()([(item["id"], item["sequence"]) for item in items])
    offsets = batch["cu_seqlens"].tolist()
    for row, start, stop in zip(padded, offsets[:-1], offsets[1:], strict=True):
        assert batch["input_ids"][start:stop].tolist() == row[row != FAIR_ESM.padding_idx].tolist()
    assert sorted(batch) == ["cu_seqlens", "input_ids", "max_seqlen", "num_sequences", "sequence_ids"]
    assert batch["input_ids"].dtype == torch.int64 and batch["input_ids"].dim() == 1
    assert batch["cu_seqlens"].dtype == torch.int32
    assert type(batch["max_seqlen"]) is int and batch["max_seqlen"] == 302
    assert batch["sequence_ids"] == ["s0", "s1", "s2", "s3", "s4"] and batch["num_sequences"] == 5


def test_another_alphabets_indices_are_taken_over() -> None:
    alphabet = SimpleNamespace(
        tok_to_idx={"A": 40, "C": 41, "X": 42, "<c>": 50, "<e>": 51}, cls_idx=50, eos_idx=51, unk_idx=9,
        prepend_bos=True, append_eos=True,
    )  # fmt: skip
    batch = VarlenCollator(SimpleNamespace(alphabet=alphabet))(items_of(["ACW"]))
    assert batch["input_ids"].tolist() == [50, 40, 41, 42, 51]


@pytest.mark.parametrize("converter", CONVERTERS, ids=["own", "fair-esm"])
def test_pickle_round_trip_without_fair_esm(converter, proteins) -> None:
    collator = VarlenCollator(converter, max_tokens=77)
    data = pickle.dumps(collator)
    assert b"esm.data" not in data and len(data) < 2000
    again = pickle.loads(data)
    items = items_of(proteins([5, 9]))
    assert again.max_tokens == 77
    assert again(items)["input_ids"].tolist() == collator(items)["input_ids"].tolist()


def test_a_call_never_drops_what_exceeds_the_budget() -> None:
    batch = VarlenCollator(max_tokens=20)(items_of(["A" * 50] * 7))
    assert batch["num_sequences"] == 7 and len(batch["sequence_ids"]) == 7
    assert len(batch["input_ids"]) == 7 * 52


def test_pack_keeps_to_the_budget_and_drops_nothing(proteins) -> None:
    generator = np.random.default_rng(3)
    items = items_of(proteins(generator.integers(1, 60, size=101).tolist()))
    batches = list(VarlenCollator(max_tokens=50).pack(items, max_sequences=4))
    assert [name for batch in batches for name in batch["sequence_ids"]] == [item["id"] for item in items]
    for batch in batches:
        assert batch["num_sequences"] <= 4
        assert len(batch["input_ids"]) <= 50 or batch["num_sequences"] == 1


def test_it_holds_no_state(proteins) -> None:
    collator = VarlenCollator(max_tokens=50)
    before = pickle.dumps(collator)
    list(collator.pack(items_of(proteins([10] * 9))))
    collator([])
    assert pickle.dumps(collator) == before


def test_no_items_give_an_empty_batch() -> None:
    batch = VarlenCollator()([])
    assert batch["input_ids"].tolist() == [] and batch["cu_seqlens"].tolist() == [0]
    assert (batch["max_seqlen"], batch["sequence_ids"], batch["num_sequences"]) == (0, [], 0)


def test_equal_ids_are_kept() -> None:
    batch = VarlenCollator()([{"id": "twin", "sequence": "MK"}, {"id": "twin", "sequence": "MK"}])
    assert batch["sequence_ids"] == ["twin", "twin"]


def test_a_sequence_without_residues_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match="'s1' has no residues"):
        VarlenCollator()(items_of(["M", "", "K"]))


@pytest.mark.parametrize(
    ("converter", "message"),
    [
        (object(), "without an alphabet"),
        (esm.data.Alphabet.from_architecture("ESM-1").get_batch_converter(), "<cls> and <eos>"),
        (FAIR_ESM.get_batch_converter(truncation_seq_length=10), "truncates"),
    ],
)
def test_unfit_converters_are_refused(converter: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VarlenCollator(converter)


def test_a_budget_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens is 0"):
        VarlenCollator(None, max_tokens=0)
