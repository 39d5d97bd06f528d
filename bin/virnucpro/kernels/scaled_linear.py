"""Linear layers on rows that a LayerNorm would have scaled, with what follows them inside: GELU, or rotary embedding.

With its gain and offset folded into weight and bias by `fused_linear.fold_norm`, a LayerNorm leaves one factor a row
(`layer_norm.row_scale`), which the product takes. ``shift`` is the product of the weight with what the rows count as
more than they have.

Shapes: T tokens, D input width, F output features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from virnucpro.kernels import triton_linear
from virnucpro.kernels.fused_linear import turn_pairs_
from virnucpro.kernels.rotary import Rotation
from virnucpro.kernels.tiles import LinearTiles


def _product_ref(
    x_TD: torch.Tensor, scale_T: torch.Tensor, weight_FD: torch.Tensor, shift_F: torch.Tensor, bias_F: torch.Tensor
) -> torch.Tensor:
    """In fp32."""
    compute = torch.promote_types(x_TD.dtype, torch.float32)
    product = F.linear(x_TD.to(compute), weight_FD.to(compute), shift_F.to(compute))
    return product * scale_T.to(compute)[:, None] + bias_F.to(compute)


def scaled_linear_gelu_ref(
    x_TD: torch.Tensor, scale_T: torch.Tensor, weight_FD: torch.Tensor, shift_F: torch.Tensor, bias_F: torch.Tensor
) -> torch.Tensor:
    """`scaled_linear_gelu` in plain PyTorch."""
    return F.gelu(_product_ref(x_TD, scale_T, weight_FD, shift_F, bias_F)).to(x_TD.dtype)


def scaled_linear_gelu(
    x_TD: torch.Tensor,
    scale_T: torch.Tensor,
    weight_FD: torch.Tensor,
    shift_F: torch.Tensor,
    bias_F: torch.Tensor,
    *,
    tiles: LinearTiles | None = None,
) -> torch.Tensor:
    """``gelu(scale (x Wᵀ + shift) + b)`` with the exact (erf) GELU in fp32.

    Args:
        x_TD: input, contiguous.
        scale_T: fp32 factor of each row.
        weight_FD: weight, same dtype as the input.
        shift_F: fp32.
        bias_F: fp32.
        tiles: tiles of the kernel, other than those of the table.

    Returns:
        (T, F) activation.
    """
    if (tiles := tiles or triton_linear.tiles_for(x_TD)) is None:
        return scaled_linear_gelu_ref(x_TD, scale_T, weight_FD, shift_F, bias_F)
    return triton_linear.launch(x_TD, scale_T, weight_FD, shift_F, bias_F, tiles)


def scaled_linear_rotary_ref(
    x_TD: torch.Tensor,
    scale_T: torch.Tensor,
    weight_3DD: torch.Tensor,
    shift_3D: torch.Tensor,
    bias_3D: torch.Tensor,
    rotation: Rotation,
) -> torch.Tensor:
    """`scaled_linear_rotary` in plain PyTorch."""
    qkv_T3D = _product_ref(x_TD, scale_T, weight_3DD, shift_3D, bias_3D)
    turn_pairs_(qkv_T3D[:, : 2 * x_TD.shape[1]], rotation)
    return qkv_T3D.to(x_TD.dtype)


def scaled_linear_rotary(
    x_TD: torch.Tensor,
    scale_T: torch.Tensor,
    weight_3DD: torch.Tensor,
    shift_3D: torch.Tensor,
    bias_3D: torch.Tensor,
    rotation: Rotation,
    *,
    tiles: LinearTiles | None = None,
) -> torch.Tensor:
    """``scale (x Wᵀ + shift) + b`` with the first two thirds, queries and keys, rotated over the whole head.

    Args:
        x_TD: input, contiguous.
        scale_T: fp32 factor of each row.
        weight_3DD: weights of queries, keys and values, same dtype as the input, the first two in `interleave_pairs`
            order.
        shift_3D: fp32, likewise.
        bias_3D: fp32, likewise.
        rotation: of the tokens.
        tiles: tiles of the kernel, other than those of the table.

    Returns:
        (T, 3D) queries, keys and values side by side.
    """
    if (tiles := tiles or triton_linear.tiles_for(x_TD)) is None:
        return scaled_linear_rotary_ref(x_TD, scale_T, weight_3DD, shift_3D, bias_3D, rotation)
    return triton_linear.launch(x_TD, scale_T, weight_3DD, shift_3D, bias_3D, tiles, rotation)


def scales_inside(x_TD: torch.Tensor) -> bool:
    """True where the layers above are kernels for such an input."""
    return triton_linear.tiles_for(x_TD) is not None
