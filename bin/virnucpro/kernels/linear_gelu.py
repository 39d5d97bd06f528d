# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""First half of the feed-forward block: linear layer, bias and erf GELU."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from virnucpro.kernels.device import jit, launch_guard, tl, triton, uses_triton
from virnucpro.kernels.launching import launcher

ELEMENTS = 4096  # of one program of the GELU pass


def gelu_polynomial(x):
    """erf GELU for a 16-bit result, to be compiled by Triton or by Gluon: GELU(x) = max(x, 0) - t (1 - Φ(t)), t = |x|.

    The polynomial in t - 2.375 stands for the last term up to t = 4.75, where it is 5e-6; fitted to less than half
    of what rounding the result to fp16 takes.
    """
    s = tl.minimum(tl.abs(x), 4.75) - 2.375
    p = -2.197592558e-06 * s + 9.930243512e-06
    p = p * s + 3.102213651e-05
    p = p * s - 2.443382549e-04
    p = p * s + 1.80122075e-04
    p = p * s + 1.869264168e-03
    p = p * s - 5.846768981e-03
    p = p * s + 3.785751661e-03
    p = p * s + 1.544985892e-02
    p = p * s - 4.3335971e-02
    p = p * s + 4.76954735e-02
    p = p * s - 2.083701223e-02
    return tl.maximum(x, 0.0, tl.PropagateNan.ALL) + p


gelu_16bit = jit(gelu_polynomial)


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
        x_TD: (T, D) input.
        weight_FD: (F, D) weight, same dtype.
        bias_F: (F,) bias, same dtype.

    Returns:
        (T, F) activation.
    """
    if not uses_triton(x_TD):
        return linear_gelu_ref(x_TD, weight_FD, bias_F)
    return gelu_(F.linear(x_TD, weight_FD, bias_F))
