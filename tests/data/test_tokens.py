from __future__ import annotations

import esm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro.data.tokens import (
    CLS,
    EOS,
    MASK,
    PAD,
    TOKEN_TO_INDEX,
    UNK,
    VOCABULARY,
    X,
    tokenise,
    tokenise_packed,
    translation_table,
)

LETTERS = "ACDEFGHIKLMNPQRSTVWYBXZUO"
FAIR_ESM = esm.data.Alphabet.from_architecture("ESM-1b")
CONVERT = FAIR_ESM.get_batch_converter()


def test_vocabulary_is_fair_esms() -> None:
    assert list(VOCABULARY) == FAIR_ESM.all_toks
    special = [FAIR_ESM.get_idx(token) for token in ("<cls>", "<pad>", "<eos>", "<unk>", "<mask>")]
    assert special == [CLS, PAD, EOS, UNK, MASK]
    assert TOKEN_TO_INDEX["X"] == X == 24


@given(st.text(LETTERS + ".-", min_size=1, max_size=80))
def test_tokens_equal_fair_esms(sequence: str) -> None:
    _, _, expected = CONVERT([("s", sequence)])
    assert tokenise(sequence).tolist() == expected[0].tolist()


@given(st.lists(st.text(max_size=30), max_size=8))
def test_any_text_gives_one_token_per_character(sequences: list[str]) -> None:
    tokens, offsets = tokenise_packed(sequences)
    assert tokens.dtype == np.int64 and offsets.dtype == np.int32
    assert np.diff(offsets).tolist() == [len(sequence) + 2 for sequence in sequences]
    assert offsets[0] == 0 and offsets[-1] == len(tokens)
    for sequence, start, stop in zip(sequences, offsets[:-1], offsets[1:], strict=True):
        assert tokens[start:stop].tolist() == tokenise(sequence).tolist()
        assert tokens[start] == CLS and tokens[stop - 1] == EOS


@pytest.mark.parametrize("text", ["J", "*", "7", "é", "\x00", "界", "<"])
def test_characters_outside_the_alphabet_become_x(text: str) -> None:
    assert tokenise(f"M{text}{text}K").tolist() == [CLS, 20, X, X, 15, EOS]


def test_a_token_name_in_the_text_is_not_parsed() -> None:
    assert len(tokenise("M<pad>K")) == len("M<pad>K") + 2
    assert PAD not in tokenise("M<pad>K") and MASK not in tokenise("<mask>")


def test_lower_case_counts_as_upper_case() -> None:
    assert tokenise("mktayiak").tolist() == tokenise("MKTAYIAK").tolist()


def test_no_sequences_give_no_tokens() -> None:
    tokens, offsets = tokenise_packed([])
    assert tokens.tolist() == [] and offsets.tolist() == [0]


def test_table_refuses_indices_that_a_byte_cannot_hold() -> None:
    with pytest.raises(ValueError, match="cannot be tokenised"):
        translation_table({"A": 256}, 0)
