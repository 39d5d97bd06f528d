"""What a card reaches in plain matrix products: the limit that its inference is held against."""

from __future__ import annotations

from typing import Final

import torch

from virnucpro.model.parameters import dtype_of

#: The products are of two matrices of this many rows and columns: large enough for any card's best rate.
SIDE: Final = 8192
#: About how long the products run each time: once to bring the clocks up, and to be timed.
SECONDS: Final = 0.05
#: The quickest counts: another thread may have kept this one from handing on its products.
TIMES: Final = 2
FEWEST, MOST = 3, 20


def matrix_teraflops(device: torch.device, precision: str) -> float | None:
    """Dense TFLOP/s of the working precision (of e4m3 for fp8), measured; None on a CPU or without memory for it.

    The device's peak of allocated memory counts anew from here, so that it is not that of these products.
    """
    dtype = torch.float8_e4m3fn if precision == "fp8" else dtype_of(precision)
    if device.type != "cuda":
        return None
    try:
        # On a stream of its own: what others copy to the device meanwhile is not waited for.
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.Stream(device)), torch.no_grad():
            seconds = _seconds_of_a_product(device, dtype)
    except torch.OutOfMemoryError:
        seconds = None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return None if seconds is None else 2 * SIDE**3 / seconds / 1e12


def _seconds_of_a_product(device: torch.device, dtype: torch.dtype) -> float:
    eight_bits = dtype == torch.float8_e4m3fn
    wide = torch.bfloat16 if eight_bits else dtype
    left, right = (torch.randn(SIDE, SIDE, device=device, dtype=wide).to(dtype) for _ in range(2))
    product = torch.empty(SIDE, SIDE, device=device, dtype=wide)
    scale = torch.ones(SIDE, 1, device=device)

    def multiply() -> None:
        if eight_bits:
            torch._scaled_mm(left, right.T, scale, scale.T, out_dtype=wide, use_fast_accum=True, out=product)
        else:
            torch.mm(left, right, out=product)

    def timed(repeats: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            multiply()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / repeats

    timed(1)
    repeats = min(max(round(SECONDS / timed(1)), FEWEST), MOST)
    timed(repeats)
    return min(timed(repeats) for _ in range(TIMES))
