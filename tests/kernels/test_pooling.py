from __future__ import annotations

import pytest
import torch
from kernel_reference import assert_as_accurate, boundaries, random

from virnucpro.kernels.pooling import pool, pool_ref

LENGTHS = [67, 17, 4, 3]


@pytest.mark.parametrize("mode", ["mean", "max", "bos"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("width", [131, 320])
def test_pool(kernel_device: str, mode: str, dtype: torch.dtype, width: int) -> None:
    x = random(sum(LENGTHS), width, dtype=dtype, device=kernel_device)
    bounds = boundaries(LENGTHS, kernel_device)
    pooled = pool(x, bounds, mode)
    assert pooled.dtype == torch.float32
    truth = torch.stack([
        {"mean": part[1:-1].mean(0), "max": part[1:-1].amax(0), "bos": part[0]}[mode]
        for part in x.double().split(LENGTHS)
    ])  # fmt: skip
    assert_as_accurate(pooled, pool_ref(x, bounds, mode), truth, torch.float32)


@pytest.mark.parametrize("mode", ["mean", "max"])
def test_nan_stays_in_its_sequence(kernel_device: str, mode: str) -> None:
    x = random(sum(LENGTHS), 64, device=kernel_device)
    x[70] = float("nan")
    finite = pool(x, boundaries(LENGTHS, kernel_device), mode).isfinite().all(1).tolist()
    assert finite == [True, False, True, True]


def test_the_twin_leaves_out_the_first_and_last_token() -> None:
    x = torch.tensor([[9.0], [1.0], [3.0], [9.0], [9.0], [5.0], [9.0]])
    assert pool_ref(x, boundaries([4, 3]), "mean").flatten().tolist() == [2.0, 5.0]
    assert pool_ref(x, boundaries([4, 3]), "max").flatten().tolist() == [3.0, 5.0]
