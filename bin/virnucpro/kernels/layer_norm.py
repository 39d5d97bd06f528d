"""Residual addition and LayerNorm in one pass over the residual stream. Shapes: T tokens, D embedding width."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def add_layer_norm_ref(
    x_TD: torch.Tensor,
    delta_TD: torch.Tensor | None,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    eps: float = 1e-5,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """`add_layer_norm` in plain PyTorch."""
    compute = torch.promote_types(x_TD.dtype, torch.float32)
    total = x_TD.to(compute)
    if delta_TD is not None:
        total = total + delta_TD.to(compute)
        x_TD.copy_(total)
    normed = F.layer_norm(total, total.shape[-1:], weight_D.to(compute), bias_D.to(compute), eps)
    return normed.to(out_dtype or x_TD.dtype)


def add_layer_norm(
    x_TD: torch.Tensor,
    delta_TD: torch.Tensor | None,
    weight_D: torch.Tensor,
    bias_D: torch.Tensor,
    eps: float = 1e-5,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``x += delta`` in place (where ``delta`` is given), then LayerNorm of the sum.

    The statistics are fp32 and taken from the sum before it is rounded to ``x``'s dtype.

    Args:
        x_TD: residual stream, contiguous; changed in place where ``delta_TD`` is given.
        delta_TD: the addend, or None for a LayerNorm alone.
        weight_D: fp32 gain.
        bias_D: fp32 offset.
        eps: added to the variance.
        out_dtype: dtype of the result; ``x_TD``'s where None.

    Returns:
        (T, D) normalised sum.
    """
    return add_layer_norm_ref(x_TD, delta_TD, weight_D, bias_D, eps, out_dtype)
