# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Erf GELU inside a kernel whose result has 16 bits."""

from __future__ import annotations

from virnucpro.kernels.device import jit, tl


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
