"""Kernels started one by one, or, before the first batch, only compiled: all of them at once."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import torch

from virnucpro.kernels.device import DeviceFacts, absent_gpu, interpreted, triton

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
    with ThreadPoolExecutor(threads) as pool:
        with _compiling_by(pool) as kernels:
            yield

        def load(kernel: Any) -> None:
            # Its launcher is compiled by the C compiler, and the kernel copied to the device, as this is looked up.
            with torch.cuda.device(device):
                kernel.run  # noqa: B018

        # Where a kernel was compiled twice, both stand for the one that is kept.
        list(pool.map(load, {each.hash: each for each in map(_compiled, kernels)}.values()))


@contextlib.contextmanager
def compiling_apart(card: DeviceFacts, executor: Executor) -> Iterator[None]:
    """Hand to ``executor``, kernel by kernel, what compiles those that are to be started inside, for tensors without
    contents and a card that need not be here: Triton's cache holds them then. For a process that starts none.
    """
    triton.runtime.driver.set_active(AbsentDriver(card.capability))
    executor.submit(_build_utilities)
    with absent_gpu(card), _compiling_by(_WithLauncher(executor)):
        yield


class AbsentDriver:
    """Triton's driver as far as compiling goes."""

    def __init__(self, capability: tuple[int, int]) -> None:
        target = importlib.import_module("triton.backends.compiler").GPUTarget
        self._target = target("cuda", 10 * capability[0] + capability[1], 32)

    def get_current_target(self) -> Any:
        """What is compiled for."""
        return self._target

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def get_current_stream(self, _device: int | None = None) -> int:
        """None that anything runs on."""
        return 0


class _WithLauncher(Executor):
    """Has each kernel followed by the launcher that its first start would compile."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, compile_kernel: Callable[[], Any], /) -> Any:  # type: ignore[override]  # all that Triton submits
        """Submit both to the other executor, as one."""
        return self._executor.submit(lambda: _build_launcher(compile_kernel()))


def _build_launcher(kernel: Any) -> None:
    importlib.import_module("triton.backends.nvidia.driver").CudaLauncher(kernel.src, kernel.metadata)


def _build_utilities() -> None:
    importlib.import_module("triton.backends.nvidia.driver").CudaUtils()


@contextlib.contextmanager
def _compiling_by(executor: Executor) -> Iterator[list[Any]]:
    """Have kernels that are to be started inside compiled by an executor; all of them are on return."""
    kernels: list[Any] = []
    token = _compiling.set(kernels)
    try:
        with triton.AsyncCompileMode(executor):
            yield kernels
    finally:
        _compiling.reset(token)


def _compiled(kernel: Any) -> Any:
    return kernel.result() if hasattr(kernel, "result") else kernel
