# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""First half of the feed-forward block: linear layer, bias and erf GELU."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from virnucpro.kernels.device import jit, launch_guard, tl, triton, uses_triton
from virnucpro.kernels.gelu_polynomial import gelu_16bit
from virnucpro.kernels.launching import launcher

ELEMENTS = 4096  # of one program of the GELU pass


@jit
def _gelu_kernel(X_ptr, elements, EXACT: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < elements
    x = tl.load(X_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    y = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476)) if EXACT else gelu_16bit(x)
    tl.store(X_ptr + offset, y.to(X_ptr.dtype.element_ty), mask=inside)


def gelu_(x: torch.Tensor) -> torch.Tensor:
    """Erf GELU in place on a contiguous tensor, fp32 maths; returns its argument."""
    if not uses_triton(x):
        return x.copy_(F.gelu(x))
    elements = x.numel()
    with launch_guard(x):
        launcher(_gelu_kernel, (triton.cdiv(elements, ELEMENTS),))(
            x, elements, x.dtype == torch.float32, ELEMENTS, num_warps=8
        )
    return x


def linear_gelu_ref(x_TD: torch.Tensor, weight_FD: torch.Tensor, bias_F: torch.Tensor) -> torch.Tensor:
    """`linear_gelu` in plain PyTorch."""
    return F.gelu(F.linear(x_TD, weight_FD, bias_F))


def linear_gelu(x_TD: torch.Tensor, weight_FD: torch.Tensor, bias_F: torch.Tensor) -> torch.Tensor:
    """``gelu(x Wᵀ + b)`` with the exact (erf) GELU in fp32.

    Args:
        x_TD: (T, D) input, contiguous.
        weight_FD: (F, D) weight, same dtype.
        bias_F: (F,) bias, same dtype.

    Returns:
        (T, F) activation.
    """
    if not uses_triton(x_TD):
        return linear_gelu_ref(x_TD, weight_FD, bias_F)
    return gelu_(F.linear(x_TD, weight_FD, bias_F))
