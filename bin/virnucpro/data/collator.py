"""From a list of sequences to the packed tensors that the model takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from virnucpro.config import Windows
from virnucpro.data.packing import Item, pack
from virnucpro.data.tokens import CLS, EOS, ESM2_TABLE, tokenise_packed, translation_table
from virnucpro.errors import DataError


class VarlenCollator:
    """Tokenises sequences into one packed batch; holds no state between calls and pickles in a few hundred bytes.

    A call never drops a sequence: it returns every one that it was given, even where they exceed ``max_tokens``.
    The budget is kept by :meth:`pack`, and by ``create_async_dataloader``, which cut the stream before they call.

    Args:
        batch_converter: fair-esm's ``alphabet.get_batch_converter()``, whose token indices are taken over; None for
            our own alphabet, which has the same indices. Letters that the alphabet lacks become X.
        max_tokens: the budget of a batch, <cls> and <eos> counted.
        windows: that the model will compute longer sequences in, which the budget counts; None for none.

    Raises:
        ValueError: a budget below 1, an alphabet without <cls> and <eos>, or a converter that truncates.
    """

    def __init__(self, batch_converter: Any = None, max_tokens: int = 4096, windows: Windows | None = None) -> None:
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}, but must be at least 1")
        self.max_tokens = max_tokens
        self.windows = windows
        # Only the table is kept: with the converter itself every worker would have to import fair-esm.
        self._table, self._cls, self._eos = ESM2_TABLE, CLS, EOS
        if batch_converter is not None:
            self._table, self._cls, self._eos = _read_alphabet(batch_converter)

    def __call__(self, batch: Sequence[Item]) -> dict[str, Any]:
        """Pack sequences into one batch.

        Args:
            batch: S mappings with 'id' and 'sequence'.

        Returns:
            input_ids int64 (T,), cu_seqlens int32 (S + 1,), max_seqlen int (tokens), sequence_ids list of S ids,
            num_sequences int.

        Raises:
            DataError: a sequence has no residues, so that nothing could be embedded.
        """
        sequences = [item["sequence"] for item in batch]
        if not all(sequences):
            nameless = batch[sequences.index("")]["id"]
            raise DataError(f"sequence '{nameless}' has no residues; remove it from the input")
        tokens, offsets = tokenise_packed(sequences, self._table, self._cls, self._eos)
        return {
            "input_ids": torch.from_numpy(tokens),
            "cu_seqlens": torch.from_numpy(offsets),
            "max_seqlen": int((offsets[1:] - offsets[:-1]).max(initial=0)),
            "sequence_ids": [item["id"] for item in batch],
            "num_sequences": len(sequences),
        }

    def pack(self, items: Iterable[Item], max_sequences: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield as many batches as the budget asks for, in input order; a sequence over the budget stands alone."""
        return map(self, pack(items, self.max_tokens, max_sequences, self.windows))


def _read_alphabet(batch_converter: Any) -> tuple[bytes, int, int]:
    alphabet = getattr(batch_converter, "alphabet", None)
    if alphabet is None or not hasattr(alphabet, "tok_to_idx"):
        raise ValueError(
            f"batch_converter is a {type(batch_converter).__name__} without an alphabet; "
            "give fair-esm's alphabet.get_batch_converter(), or None"
        )
    if not (alphabet.prepend_bos and alphabet.append_eos):
        raise ValueError("the alphabet does not put <cls> and <eos> around a sequence; give the alphabet of ESM-2")
    if getattr(batch_converter, "truncation_seq_length", None):
        raise ValueError("the batch converter truncates; truncate by SequenceDataset(max_length=...) instead")
    token_to_index = alphabet.tok_to_idx
    unknown = token_to_index.get("X", alphabet.unk_idx)
    return translation_table(token_to_index, unknown), alphabet.cls_idx, alphabet.eos_idx
