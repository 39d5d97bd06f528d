"""The limit that inference is held against."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from virnucpro.errors import UsageError
from virnucpro.pipeline import matrix_rate
from virnucpro.pipeline.matrix_rate import SIDE, matrix_teraflops

#: What the products of a card are multiplied under.
NO_CARD = {name: lambda _: torch.no_grad() for name in ("device", "stream", "Stream")}


def test_a_cpu_has_none() -> None:
    assert matrix_teraflops(torch.device("cpu"), "fp32") is None


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp8", torch.float8_e4m3fn)],
)
def test_the_rate_is_that_of_a_product_in_the_working_precision(
    monkeypatch: pytest.MonkeyPatch, precision: str, dtype: torch.dtype
) -> None:
    asked: list[torch.dtype] = []
    cuda = SimpleNamespace(**NO_CARD, empty_cache=lambda: None, reset_peak_memory_stats=lambda device: None)
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(
        matrix_rate, "_seconds_of_a_product", lambda device, dtype: asked.append(dtype) or 2 * SIDE**3 / 778e12
    )
    assert matrix_teraflops(torch.device("cuda", 0), precision) == pytest.approx(778)
    assert asked == [dtype]


def test_a_card_without_the_memory_for_it_runs_on_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(device: torch.device, dtype: torch.dtype) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    given_back: list[bool] = []
    cuda = SimpleNamespace(
        **NO_CARD,
        empty_cache=lambda: given_back.append(True),
        reset_peak_memory_stats=lambda device: None,
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(matrix_rate, "_seconds_of_a_product", full)
    assert matrix_teraflops(torch.device("cuda", 0), "fp16") is None
    assert given_back == [True]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_precision_that_there_is_not_has_no_rate(device: str) -> None:
    with pytest.raises(UsageError, match="precision 'fp64' is not available"):
        matrix_teraflops(torch.device(device), "fp64")


@pytest.mark.gpu
def test_a_gpu_repeats_its_rate() -> None:
    device = torch.device("cuda", 0)
    first, second = (matrix_teraflops(device, "fp16") for _ in range(2))
    assert first is not None and second is not None
    assert second == pytest.approx(first, rel=0.2)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0), reason="needs a Hopper GPU"
)
def test_the_limit_of_fp8_is_that_of_e4m3_products() -> None:
    device = torch.device("cuda", 0)
    half, eight = (matrix_teraflops(device, precision) for precision in ("fp16", "fp8"))
    assert half is not None and eight is not None
    assert 1.3 * half < eight < 2.5 * half


@pytest.mark.gpu
def test_the_measurement_is_no_part_of_the_peak_of_memory() -> None:
    device = torch.device("cuda", 0)
    matrix_teraflops(device, "fp16")
    assert torch.cuda.max_memory_allocated(device) == torch.cuda.memory_allocated(device)
