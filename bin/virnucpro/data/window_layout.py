"""Long sequences of a batch as overlapping windows, and the windows' hidden states as those of the sequences.

Shape letters: T tokens of the sequences, W tokens of their windows, D embed_dim, R tokens that several windows hold,
M tokens of windows that stand for those.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from virnucpro.config import Windows
from virnucpro.data.packed_batch import PackedBatch
from virnucpro.windows import window_starts

Array = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """What is computed in place of a batch that has long sequences.

    Attributes:
        batch: the windows of the long sequences, each distinct one once, and the other sequences.
        first: int64 (T,), the first of W that holds each token.
        shared: int64 (R,), the tokens of T that several windows hold: residues, and <cls> and <eos> of long sequences.
        counts: int64 (R,), how many hold each.
        sources: int64 (M,), which of W they are, token after token.
    """

    batch: PackedBatch
    first: torch.Tensor
    shared: torch.Tensor
    counts: torch.Tensor
    sources: torch.Tensor

    def fold(self, states_WD: torch.Tensor) -> torch.Tensor:
        """(T, D) hidden states of the sequences, in the type of ``states_WD``.

        Where several windows hold a token, its state is their mean, taken in fp32.
        """
        folded_TD = states_WD[self.first]
        if self.shared.numel():
            several_MD, counts = states_WD[self.sources].float(), self.counts
            if several_MD.device.type == "mps":  # which PyTorch reduces no segments on
                several_MD, counts = several_MD.cpu(), counts.cpu()
            means_RD = torch.segment_reduce(several_MD, "mean", lengths=counts, axis=0, unsafe=True)
            folded_TD[self.shared] = means_RD.to(folded_TD)
        return folded_TD

    def to(self, device: torch.device) -> WindowLayout:
        """The same on a device."""
        ids, bounds = self.batch.input_ids.to(device), self.batch.cu_seqlens.to(device)
        batch = PackedBatch(ids, bounds, self.batch.max_seqlen, self.batch.sequence_ids)
        return WindowLayout(batch, *(tensor.to(device) for tensor in self._of_fold()))

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Have the allocator keep the tensors until this stream has used them."""
        for tensor in (self.batch.input_ids, self.batch.cu_seqlens, *self._of_fold()):
            tensor.record_stream(stream)

    def _of_fold(self) -> tuple[torch.Tensor, ...]:
        return self.first, self.shared, self.counts, self.sources


def lay_out(batch: PackedBatch, windows: Windows | None) -> WindowLayout | None:
    """What to compute for a batch on the host, or None where no sequence is longer than a window."""
    if windows is None or batch.max_seqlen <= windows.residues + 2:
        return None
    ids, bounds = batch.input_ids.numpy(), batch.cu_seqlens.tolist()
    pieces: list[Array] = []
    names: list[str] = []
    starts: list[int] = [0]
    known: dict[bytes, int] = {}
    held: list[Array] = []
    holding: list[Array] = []
    for name, (begin, end) in zip(batch.sequence_ids, pairwise(bounds), strict=True):
        for tokens in _windows(begin, end, windows):
            piece = ids[tokens]
            key = piece.tobytes()
            place = known.get(key)
            if place is None:
                place = known[key] = len(pieces)
                pieces.append(piece)
                names.append(name)
                starts.append(starts[-1] + len(piece))
            held.append(tokens)
            holding.append(np.arange(starts[place], starts[place + 1]))
    computed = PackedBatch(
        torch.from_numpy(np.concatenate(pieces)),
        torch.tensor(starts, dtype=torch.int32),
        max(map(len, pieces)),
        tuple(names),
    )
    return WindowLayout(computed, *_fold(np.concatenate(held), np.concatenate(holding), batch.tokens))


def _windows(begin: int, end: int, windows: Windows) -> list[Array]:
    """The tokens of a sequence that each of its windows is made of: <cls>, residues, <eos>."""
    residues = end - begin - 2
    if residues <= windows.residues:
        return [np.arange(begin, end)]
    inner = [begin + 1 + start for start in window_starts(residues, windows)]
    return [np.concatenate(([begin], np.arange(at, at + windows.residues), [end - 1])) for at in inner]


def _fold(held: Array, holding: Array, tokens: int) -> tuple[torch.Tensor, ...]:
    """``first``, ``shared``, ``counts`` and ``sources``, of tokens of T and those of W that hold them."""
    holding = holding[np.argsort(held, kind="stable")]
    counts = np.bincount(held, minlength=tokens)
    first = holding[np.cumsum(counts) - counts]
    shared = np.flatnonzero(counts > 1)
    sources = holding[np.repeat(counts, counts) > 1]
    return tuple(map(torch.from_numpy, (first, shared, counts[shared], sources)))
