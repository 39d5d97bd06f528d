from __future__ import annotations

import pytest
import torch
from kernel_reference import assert_as_accurate, random

from virnucpro.kernels.layer_norm import add_layer_norm, add_layer_norm_ref, row_scale, row_scale_ref


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("tokens", "width"), [(1, 320), (7, 131), (13, 1280)])
@pytest.mark.parametrize("with_delta", [True, False])
def test_add_layer_norm(kernel_device: str, dtype: torch.dtype, tokens: int, width: int, with_delta: bool) -> None:
    x, delta = (random(tokens, width, dtype=dtype, device=kernel_device, seed=seed) for seed in (1, 2))
    gain, offset = (random(width, device=kernel_device, seed=seed) for seed in (3, 4))
    x += 3  # a mean that matters
    addend = delta if with_delta else None
    streams = x.clone(), x.clone(), x.double()
    kernel = add_layer_norm(streams[0], addend, gain, offset)
    twin = add_layer_norm_ref(streams[1], addend, gain, offset)
    truth = add_layer_norm_ref(streams[2], delta.double() if with_delta else None, gain, offset)
    assert kernel.dtype == dtype
    assert_as_accurate(kernel, twin, truth, dtype)
    assert_as_accurate(streams[0], streams[1], streams[2], dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("tokens", "width"), [(1, 320), (7, 131), (13, 1280), (3, 5120)])
def test_rows_that_lack_a_part(kernel_device: str, dtype: torch.dtype, tokens: int, width: int) -> None:
    """The part counts in the norm and in the scale, and is not written to the rows."""
    x = 3 * random(tokens, width, dtype=dtype, device=kernel_device)
    lack, gain, offset = (random(width, device=kernel_device, seed=seed) for seed in (2, 3, 4))
    before = x.clone()
    whole = x.double() + lack.double()
    twin, truth = (add_layer_norm_ref(rows, None, gain, offset, shift_D=lack) for rows in (x, x.double()))
    assert_as_accurate(add_layer_norm(x, None, gain, offset, shift_D=lack), twin, truth, dtype)
    torch.testing.assert_close(truth, add_layer_norm_ref(whole, None, gain, offset))
    assert_as_accurate(row_scale(x, lack), row_scale_ref(x, lack), row_scale_ref(x.double(), lack), torch.float32)
    torch.testing.assert_close(row_scale_ref(x.double(), lack), (whole.var(1, correction=0) + 1e-5) ** -0.5)
    assert torch.equal(x, before)


def test_out_dtype(kernel_device: str) -> None:
    x = random(5, 64, dtype=torch.float16, device=kernel_device)
    ones, zeros = torch.ones(64, device=kernel_device), torch.zeros(64, device=kernel_device)
    assert add_layer_norm(x, None, ones, zeros, out_dtype=torch.float32).dtype == torch.float32


def test_the_twin_normalises() -> None:
    x = random(4, 50).double()
    out = add_layer_norm_ref(x, None, torch.ones(50), torch.zeros(50), eps=0.0)
    torch.testing.assert_close(out.mean(1), torch.zeros(4).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(out.square().mean(1), torch.ones(4).double())
