"""The embedding layer over packed tokens: what the residual stream begins with.

Shape letters: T tokens, S sequences, V vocabulary, D embed_dim, P positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from virnucpro.errors import UsageError
from virnucpro.model.projections import LayerNorm, Packing
from virnucpro.shards import SPECIAL_TOKENS

MASK: Final = 32


@dataclass(frozen=True, slots=True)
class Embedding:
    """Rows of a table by token id; with learned positions their rows added, and the norm of the sum where there is one.

    Args:
        table: (V, D), holds the scale of a sequence without <mask>, and zeros for <mask>, where there is token dropout.
        dtype: of the result. What is added before is added in fp32.
        token_dropout: whether a sequence is scaled for the share of its tokens that are <mask>.
        positions: (P, D) in fp32, of <cls> first.
    """

    table: Tensor
    dtype: torch.dtype
    token_dropout: bool
    positions: Tensor | None = None
    norm: LayerNorm | None = None

    def __call__(self, ids_T: Tensor, packing: Packing, masked: bool | None) -> Tensor:
        """(T, D) embeddings; ``masked`` tells whether <mask> occurs, None looks.

        Raises:
            UsageError: a sequence is longer than the positions that were learned.
        """
        x_TD = functional.embedding(ids_T, self.table)
        if self.token_dropout and masked is not False:
            masks_T = ids_T == MASK
            if masked or bool(masks_T.any()):
                x_TD = (x_TD / _unmasked_share(masks_T, packing.cu_seqlens)[:, None]).to(x_TD.dtype)
        if self.positions is not None:
            longest = self.positions.shape[0] - SPECIAL_TOKENS
            if (residues := packing.max_seqlen - SPECIAL_TOKENS) > longest:
                raise UsageError(
                    f"a sequence has {residues} residues, and this model has learned positions "
                    f"for {longest}; give --max_length {longest} without --long_sequences full"
                )
            x_TD += self.positions[packing.positions]
        return x_TD.to(self.dtype) if self.norm is None else self.norm(x_TD, None, self.dtype)


def _unmasked_share(masks_T: Tensor, cu_seqlens: Tensor) -> Tensor:
    """(T,) share of tokens, <cls> and <eos> included, that are not <mask> in each token's own sequence."""
    offsets = cu_seqlens.long()
    lengths_S = offsets.diff()
    counted = functional.pad(masks_T.long().cumsum(0), (1, 0))
    share_S = 1 - counted[offsets].diff().float() / lengths_S
    return share_S.repeat_interleave(lengths_S, output_size=masks_T.numel())
