"""Kernels started one by one, or, before the first batch, only compiled: all of them at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import torch

from virnucpro.kernels.device import interpreted, triton

#: What stands in for the kernels that were to be started; None where they are.
_compiling: ContextVar[list[Any] | None] = ContextVar("compiling", default=None)


def launcher(kernel: Any, grid: tuple[int, ...]) -> Callable[..., object]:
    """What runs a kernel on the current device when it is called, or has it compiled inside `compiling_together`."""
    compiling = _compiling.get()
    if compiling is None:
        launch: Callable[..., object] = kernel[grid]
        return launch
    return lambda *arguments, **options: compiling.append(kernel.warmup(*arguments, grid=grid, **options))


def compiles_together() -> bool:
    """True where this Triton compiles, and can do so on several threads."""
    return hasattr(triton, "AsyncCompileMode") and not interpreted()


@contextlib.contextmanager
def compiling_together(device: torch.device, threads: int) -> Iterator[None]:
    """Start no kernel inside, but compile for ``device`` what was to be started, on several threads.

    Triton lets other threads run while it compiles. On return all kernels are compiled and on the device. What they
    would have computed stays undefined.
    """
    kernels: list[Any] = []
    with ThreadPoolExecutor(threads) as pool:
        token = _compiling.set(kernels)
        try:
            with triton.AsyncCompileMode(pool):
                yield
        finally:
            _compiling.reset(token)

        def load(kernel: Any) -> None:
            # Its launcher is compiled by the C compiler, and the kernel copied to the device, as this is looked up.
            with torch.cuda.device(device):
                kernel.run  # noqa: B018

        # Where a kernel was compiled twice, both stand for the one that is kept.
        list(pool.map(load, {each.hash: each for each in map(_compiled, kernels)}.values()))


def _compiled(kernel: Any) -> Any:
    return kernel.result() if hasattr(kernel, "result") else kernel
