from __future__ import annotations

import pytest
import torch
from kernel_reference import assert_as_accurate, boundaries, random, relative_error

from virnucpro.kernels.attention import varlen_attention, varlen_attention_ref
from virnucpro.kernels.tiles import AttentionTiles

LENGTHS = [67, 64, 17, 17, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("heads", "head_dim"), [(2, 16), (2, 24), (1, 32), (1, 64), (1, 128)])
def test_varlen_attention(kernel_device: str, dtype: torch.dtype, heads: int, head_dim: int) -> None:
    qkv = 1.7 * random(sum(LENGTHS), 3 * heads * head_dim, dtype=dtype, device=kernel_device)
    arguments = (boundaries(LENGTHS, kernel_device), max(LENGTHS), heads, head_dim**-0.5)
    truth = varlen_attention_ref(qkv.double(), *arguments)
    twin = varlen_attention_ref(qkv, *arguments)
    assert_as_accurate(varlen_attention(qkv, *arguments), twin, truth, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("head_dim", [16, 32])
def test_low_parts_sharpen_the_logits(kernel_device: str, dtype: torch.dtype, head_dim: int) -> None:
    heads, lengths = 2, [70, 3]
    exact = 3 * random(sum(lengths), 3 * heads * head_dim)
    exact[:, 2 * heads * head_dim :] = exact[:, 2 * heads * head_dim :].to(dtype)
    qkv = exact.to(kernel_device, dtype)
    low = (exact.to(kernel_device) - qkv)[:, : 2 * heads * head_dim].to(dtype)
    arguments = (boundaries(lengths, kernel_device), max(lengths), heads, head_dim**-0.5)
    truth = varlen_attention_ref(exact.to(kernel_device).double(), *arguments)
    twin = varlen_attention_ref(qkv, *arguments, low)
    out = varlen_attention(qkv, *arguments, low)
    assert_as_accurate(out, twin, truth, dtype)
    assert 3 * relative_error(out, truth) < relative_error(varlen_attention(qkv, *arguments), truth)


@pytest.mark.parametrize("choice", [(64, 32, 4, 2), (128, 32, 4, 3), (128, 64, 8, 2)])
def test_other_tiles_give_the_same(kernel_device: str, choice: tuple[int, int, int, int]) -> None:
    qkv = random(sum(LENGTHS), 3 * 32, dtype=torch.float16, device=kernel_device)
    arguments = (boundaries(LENGTHS, kernel_device), max(LENGTHS), 1, 32**-0.5)
    out = varlen_attention(qkv, *arguments, tiles=AttentionTiles(*choice))
    truth = varlen_attention_ref(qkv.double(), *arguments)
    assert_as_accurate(out, varlen_attention_ref(qkv, *arguments), truth, torch.float16)


def test_large_logits(kernel_device: str) -> None:
    qkv = 12 * random(41, 3 * 32, device=kernel_device)
    arguments = (boundaries([41], kernel_device), 41, 1, 32**-0.5)
    truth = varlen_attention_ref(qkv.double(), *arguments)
    assert_as_accurate(varlen_attention(qkv, *arguments), varlen_attention_ref(qkv, *arguments), truth, torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("longest", [181, 1024])
def test_real_lengths(longest: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    lengths = sorted([longest, *range(3, longest, 37)], reverse=True)
    qkv = random(sum(lengths), 3 * 1280, dtype=torch.float16, device="cuda")
    arguments = (boundaries(lengths, "cuda"), longest, 20, 0.125)
    truth = varlen_attention_ref(qkv.float(), *arguments)
    assert_as_accurate(varlen_attention(qkv, *arguments), varlen_attention_ref(qkv, *arguments), truth, torch.float16)


def test_the_twin_is_softmax_attention_within_each_sequence() -> None:
    lengths, heads, head_dim = [5, 5, 3, 4, 1], 2, 6
    qkv = random(sum(lengths), 3 * heads * head_dim).double()
    out = varlen_attention_ref(qkv, boundaries(lengths), 5, heads, 0.4)
    for piece, attended in zip(qkv.split(lengths), out.split(lengths), strict=True):
        query, key, value = piece.view(-1, 3, heads, head_dim).permute(1, 2, 0, 3)
        expected = (0.4 * query @ key.mT).softmax(-1) @ value
        torch.testing.assert_close(attended.view(-1, heads, head_dim).transpose(0, 1), expected)
