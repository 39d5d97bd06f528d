"""Rotary position embedding on the fused QKV projection.

Shapes: T tokens, D embedding width, P positions of the table, H half of the head dimension.
"""

from __future__ import annotations

import torch


def rotary_ref_(
    qkv_T3D: torch.Tensor, positions_T: torch.Tensor, cos_PH: torch.Tensor, sin_PH: torch.Tensor, heads: int
) -> None:
    """`rotary_` in plain PyTorch."""
    tokens, width = qkv_T3D.shape
    pairs = qkv_T3D.view(tokens, 3, heads, 2, width // (6 * heads))[:, :2]
    compute = torch.promote_types(qkv_T3D.dtype, torch.float32)
    index = positions_T.long()
    cos, sin = (table.to(compute)[index][:, None, None, :] for table in (cos_PH, sin_PH))
    first, second = pairs.to(compute).unbind(3)
    pairs.copy_(torch.stack((first * cos - second * sin, second * cos + first * sin), dim=3))


def rotary_(
    qkv_T3D: torch.Tensor, positions_T: torch.Tensor, cos_PH: torch.Tensor, sin_PH: torch.Tensor, heads: int
) -> None:
    """Rotate the queries and keys in place over the whole head (rotate-half: element i pairs with i + head_dim/2).

    Args:
        qkv_T3D: queries, keys and values of each token side by side, contiguous (T, 3D).
        positions_T: int32 position of each token in its sequence, 0 for ``<cls>``.
        cos_PH: fp32 cosines, one row a position.
        sin_PH: fp32 sines, one row a position.
        heads: attention heads.
    """
    rotary_ref_(qkv_T3D, positions_T, cos_PH, sin_PH, heads)
