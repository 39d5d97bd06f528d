"""Error measures for kernel tests: the oracle is the twin in fp64, the yardstick the twin's own rounding."""

from __future__ import annotations

import torch

from virnucpro.kernels.rotary import Rotation

EPSILON = {torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


def relative_error(value: torch.Tensor, truth: torch.Tensor) -> float:
    """Relative L2 error; NaN counts as infinite."""
    wide = value.double().cpu()
    if wide.isnan().any():
        return float("inf")
    return ((wide - truth.double().cpu()).norm() / truth.double().cpu().norm()).item()


def assert_as_accurate(value: torch.Tensor, twin: torch.Tensor, truth: torch.Tensor, dtype: torch.dtype) -> None:
    """The kernel's error is at most twice the twin's at the same precision, or four units of fp32, in which all sum."""
    allowed = max(2 * relative_error(twin, truth), 4 * EPSILON[torch.float32])
    assert value.dtype == twin.dtype == dtype
    assert relative_error(value, truth) <= allowed


def random(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(device, dtype)


def boundaries(lengths: list[int], device: str = "cpu") -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)


def positions(lengths: list[int], device: str = "cpu") -> torch.Tensor:
    return torch.cat([torch.arange(length) for length in lengths]).to(device, torch.int32)


def tables(longest: int, half: int, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    angle = torch.outer(torch.arange(longest), 10000.0 ** -(torch.arange(half) / half))
    return angle.cos().to(device), angle.sin().to(device)


def rotation_of(lengths: list[int], half: int, device: str = "cpu") -> Rotation:
    return Rotation(positions(lengths, device), *tables(max(lengths), half, device))
