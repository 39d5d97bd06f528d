"""A batch of sequences laid end to end, as one immutable value.

Shape letters: T tokens of the batch, S sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Tokens of S sequences without padding; sequence s is ``input_ids[cu_seqlens[s]:cu_seqlens[s + 1]]``.

    Attributes:
        input_ids: int64 (T,), <cls> first and <eos> last of each sequence.
        cu_seqlens: int32 (S + 1,), from 0 to T.
        max_seqlen: tokens of the longest sequence (an upper bound is as good to the kernels).
        sequence_ids: S ids, not necessarily distinct.

    Raises:
        ValueError: shapes, dtypes or counts that do not belong together.
    """

    input_ids: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int
    sequence_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.input_ids.dtype != torch.int64 or self.input_ids.dim() != 1:
            raise ValueError(f"input_ids must be int64 (T,), not {self.input_ids.dtype} {tuple(self.input_ids.shape)}")
        if self.cu_seqlens.dtype != torch.int32 or self.cu_seqlens.shape != (self.num_sequences + 1,):
            raise ValueError(
                f"cu_seqlens must be int32 ({self.num_sequences + 1},) for {self.num_sequences} ids, "
                f"not {self.cu_seqlens.dtype} {tuple(self.cu_seqlens.shape)}"
            )
        if self.cu_seqlens.device.type == "cpu" and int(self.cu_seqlens[-1]) != self.tokens:
            raise ValueError(f"cu_seqlens ends at {int(self.cu_seqlens[-1])}, but the batch has {self.tokens} tokens")

    @classmethod
    def from_dict(cls, batch: Mapping[str, Any]) -> PackedBatch:
        """Build from the collator's dict.

        Raises:
            ValueError: a key is missing or the values do not belong together.
        """
        missing = [key for key in ("input_ids", "cu_seqlens", "max_seqlen", "sequence_ids") if key not in batch]
        if missing:
            raise ValueError(f"a packed batch lacks {', '.join(missing)}; make it with VarlenCollator")
        return cls(
            input_ids=batch["input_ids"],
            cu_seqlens=batch["cu_seqlens"],
            max_seqlen=int(batch["max_seqlen"]),
            sequence_ids=tuple(batch["sequence_ids"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that VarlenCollator makes: the same tensors, ids as a list, and num_sequences."""
        return {
            "input_ids": self.input_ids,
            "cu_seqlens": self.cu_seqlens,
            "max_seqlen": self.max_seqlen,
            "sequence_ids": list(self.sequence_ids),
            "num_sequences": self.num_sequences,
        }

    @property
    def tokens(self) -> int:
        """T, <cls> and <eos> counted."""
        return self.input_ids.shape[0]

    @property
    def num_sequences(self) -> int:
        """S."""
        return len(self.sequence_ids)

    @cached_property
    def lengths(self) -> torch.Tensor:
        """Tokens of each sequence, int32 (S,)."""
        return self.cu_seqlens[1:] - self.cu_seqlens[:-1]

    @cached_property
    def positions(self) -> torch.Tensor:
        """Position of each token in its own sequence, int32 (T,), 0 at <cls>."""
        starts = torch.repeat_interleave(self.cu_seqlens[:-1], self.lengths, output_size=self.tokens)
        return torch.arange(self.tokens, dtype=torch.int32, device=starts.device) - starts

    def split(self) -> tuple[PackedBatch, PackedBatch]:
        """Return two batches that hold the sequences of this one in order, cut nearest to half of the tokens.

        Raises:
            ValueError: there are fewer than two sequences.
        """
        if self.num_sequences < 2:
            raise ValueError(f"a batch of {self.num_sequences} sequence(s) cannot be split")
        inner = self.cu_seqlens[1:-1].to(torch.int64)
        cut = int(torch.argmin((2 * inner - self.tokens).abs())) + 1
        return self.part(0, cut), self.part(cut, self.num_sequences)

    def part(self, first: int, last: int) -> PackedBatch:
        """Return sequences ``first`` to ``last - 1`` as a batch of their own (at least one); tokens are shared."""
        start, stop = int(self.cu_seqlens[first]), int(self.cu_seqlens[last])
        return PackedBatch(
            input_ids=self.input_ids[start:stop],
            cu_seqlens=self.cu_seqlens[first : last + 1] - start,
            max_seqlen=int(self.lengths[first:last].max()),
            sequence_ids=self.sequence_ids[first:last],
        )

    def pin_memory(self) -> PackedBatch:
        """Return the batch in page-locked memory, which only a machine with a GPU has."""
        return PackedBatch(
            input_ids=self.input_ids.pin_memory(),
            cu_seqlens=self.cu_seqlens.pin_memory(),
            max_seqlen=self.max_seqlen,
            sequence_ids=self.sequence_ids,
        )
