"""Queries, keys and values: one linear layer, its queries and keys rotated."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from virnucpro.kernels import triton_linear
from virnucpro.kernels.rotary import Rotation, rotary_, rotary_ref_
from virnucpro.kernels.tiles import LinearTiles


def linear_rotary_ref(
    x_TD: torch.Tensor,
    weight_3DD: torch.Tensor,
    bias_3D: torch.Tensor,
    rotation: Rotation,
    heads: int,
    *,
    adjacent: bool = False,
) -> torch.Tensor:
    """`linear_rotary` in plain PyTorch."""
    qkv_T3D = F.linear(x_TD, weight_3DD, bias_3D)
    rotary_ref_(qkv_T3D, rotation, heads, adjacent=adjacent)
    return qkv_T3D


def linear_rotary(
    x_TD: torch.Tensor,
    weight_3DD: torch.Tensor,
    bias_3D: torch.Tensor,
    rotation: Rotation,
    heads: int,
    *,
    adjacent: bool = False,
    tiles: LinearTiles | None = None,
) -> torch.Tensor:
    """``x Wᵀ + b`` with the first two thirds, queries and keys, rotated over the whole head.

    Args:
        x_TD: (T, D) input, contiguous.
        weight_3DD: (3D, D) weights of queries, keys and values, same dtype.
        bias_3D: (3D,) their biases, same dtype.
        rotation: of the tokens.
        heads: attention heads.
        adjacent: element 2i of a head pairs with 2i+1, in which order `rotates_inside` wants them; otherwise i pairs
            with i + head_dim/2 (rotate-half).
        tiles: tiles of the kernel that does both at once, other than those of the table.

    Returns:
        (T, 3D) queries, keys and values side by side.
    """
    tiles = tiles or (triton_linear.tiles_for(x_TD) if adjacent else None)
    if tiles is not None:
        return triton_linear.launch(x_TD, weight_3DD, bias_3D, tiles, rotation)
    qkv_T3D = F.linear(x_TD, weight_3DD, bias_3D)
    rotary_(qkv_T3D, rotation, heads, adjacent=adjacent)
    return qkv_T3D


def rotates_inside(x_TD: torch.Tensor) -> bool:
    """True where `linear_rotary` of such an input is one kernel, if its pairs are neighbours."""
    return triton_linear.tiles_for(x_TD) is not None
