"""What a card reaches in plain matrix products: the limit that its inference is held against."""

from __future__ import annotations

from typing import Final

import torch

from virnucpro.config import PRECISIONS

#: The products are of two matrices of this many rows and columns: large enough for any card's best rate.
SIDE: Final = 8192
#: About how long the products run, once to bring the clocks up and once more to be timed.
SECONDS: Final = 0.05
FEWEST, MOST = 3, 20


def matrix_teraflops(device: torch.device, precision: str) -> float | None:
    """Dense TFLOP/s of the working precision (of fp16 for fp8), measured; None on a CPU or without memory for it."""
    if device.type != "cuda":
        return None
    dtype = getattr(torch, PRECISIONS[precision].limit)
    try:
        with torch.cuda.device(device), torch.no_grad():
            seconds = _seconds_of_a_product(device, dtype)
    except torch.OutOfMemoryError:
        seconds = None
    torch.cuda.empty_cache()
    return None if seconds is None else 2 * SIDE**3 / seconds / 1e12


def _seconds_of_a_product(device: torch.device, dtype: torch.dtype) -> float:
    left, right = (torch.randn(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)

    def timed(repeats: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            torch.mm(left, right, out=product)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / repeats

    timed(1)
    repeats = min(max(round(SECONDS / timed(1)), FEWEST), MOST)
    timed(repeats)
    return timed(repeats)
