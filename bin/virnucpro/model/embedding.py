"""The embedding layer over packed tokens: what the residual stream begins with.

Shape letters: T tokens, S sequences, V vocabulary, D embed_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor
from torch.nn import functional

from virnucpro.model.layers import Packing

MASK: Final = 32


@dataclass(frozen=True, slots=True)
class Embedding:
    """Rows of a table by token id.

    Args:
        table: (V, D), holds the scale of a sequence without <mask>, and zeros for <mask>, where there is token dropout.
        token_dropout: whether a sequence is scaled for the share of its tokens that are <mask>.
    """

    table: Tensor
    token_dropout: bool

    def __call__(self, ids_T: Tensor, packing: Packing, masked: bool | None) -> Tensor:
        """(T, D) embeddings; ``masked`` tells whether <mask> occurs, None looks."""
        x_TD = functional.embedding(ids_T, self.table)
        if self.token_dropout and masked is not False:
            masks_T = ids_T == MASK
            if masked or bool(masks_T.any()):
                x_TD = (x_TD / _unmasked_share(masks_T, packing.cu_seqlens)[:, None]).to(x_TD.dtype)
        return x_TD


def _unmasked_share(masks_T: Tensor, cu_seqlens: Tensor) -> Tensor:
    """(T,) share of tokens, <cls> and <eos> included, that are not <mask> in each token's own sequence."""
    offsets = cu_seqlens.long()
    lengths_S = offsets.diff()
    counted = functional.pad(masks_T.long().cumsum(0), (1, 0))
    share_S = 1 - counted[offsets].diff().float() / lengths_S
    return share_S.repeat_interleave(lengths_S, output_size=masks_T.numel())
