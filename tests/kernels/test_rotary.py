from __future__ import annotations

import pytest
import torch
from kernel_reference import assert_as_accurate, positions, random, tables

from virnucpro.kernels.rotary import Rotation, rotary_, rotary_ref_

LENGTHS = [37, 5, 1, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("heads", "head_dim"), [(3, 24), (2, 16), (1, 64), (1, 128)])
@pytest.mark.parametrize("adjacent", [True, False])
def test_rotary(kernel_device: str, dtype: torch.dtype, heads: int, head_dim: int, adjacent: bool) -> None:
    qkv = random(sum(LENGTHS), 3 * heads * head_dim, dtype=dtype, device=kernel_device)
    cos, sin = tables(40, head_dim // 2, kernel_device)
    place = positions(LENGTHS, kernel_device)
    kernel, twin, truth = qkv.clone(), qkv.clone(), qkv.double()
    rotary_(kernel, Rotation(place, cos, sin), heads, adjacent=adjacent)
    rotary_ref_(twin, Rotation(place, cos, sin), heads, adjacent=adjacent)
    rotary_ref_(truth, Rotation(place, cos, sin), heads, adjacent=adjacent)
    assert_as_accurate(kernel, twin, truth, dtype)
    width = heads * head_dim
    assert torch.equal(kernel[:, 2 * width :], qkv[:, 2 * width :])


def test_the_twin_turns_each_pair_by_its_angle() -> None:
    qkv = random(6, 24).double()
    cos, sin = tables(6, 4)
    turned = qkv.clone()
    rotary_ref_(turned, Rotation(torch.arange(6), cos, sin), heads=1)
    before = torch.complex(qkv[:, :4], qkv[:, 4:8])
    expected = before * torch.complex(cos.double(), sin.double())
    torch.testing.assert_close(turned[:, :8], torch.cat((expected.real, expected.imag), 1))
