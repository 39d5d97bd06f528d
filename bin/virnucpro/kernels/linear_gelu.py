"""First half of the feed-forward block: linear layer, bias and erf GELU."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def linear_gelu_ref(x_TD: torch.Tensor, weight_FD: torch.Tensor, bias_F: torch.Tensor) -> torch.Tensor:
    """`linear_gelu` in plain PyTorch."""
    return F.gelu(F.linear(x_TD, weight_FD, bias_F))


def linear_gelu(x_TD: torch.Tensor, weight_FD: torch.Tensor, bias_F: torch.Tensor) -> torch.Tensor:
    """``gelu(x Wᵀ + b)`` with the exact (erf) GELU in fp32.

    Args:
        x_TD: (T, D) input.
        weight_FD: (F, D) weight, same dtype.
        bias_F: (F,) bias, same dtype.

    Returns:
        (T, F) activation.
    """
    return linear_gelu_ref(x_TD, weight_FD, bias_F)
