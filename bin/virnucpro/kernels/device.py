"""Where a kernel runs: Triton on an NVIDIA GPU, plain PyTorch elsewhere. Nothing here asks CUDA anything at import."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

import torch

#: The version of Triton whose Gluon the kernels for Hopper are written in: before it they do not compile, and what
#: comes after it may change what is still experimental.
GLUON_OF: Final = "3.6."

try:
    triton: Any = importlib.import_module("triton")
    tl: Any = importlib.import_module("triton.language")
except ImportError:
    triton = tl = None
try:
    if not getattr(triton, "__version__", "").startswith(GLUON_OF):
        raise ImportError
    gluon: Any = importlib.import_module("triton.experimental.gluon")
    gl: Any = importlib.import_module("triton.experimental.gluon.language")
    hopper: Any = importlib.import_module("triton.experimental.gluon.language.nvidia.hopper")
    tensor_descriptor: Any = importlib.import_module("triton.experimental.gluon.nvidia.hopper").TensorDescriptor
except ImportError:
    gluon = gl = hopper = tensor_descriptor = None


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """``triton.jit``, or the function as it stands where Triton is not installed and no kernel can be launched.

    A batch's number of tokens is not to be specialised: Triton would compile once more for what 16 divides.
    """
    return function if triton is None else triton.jit(function, **options)


def gluon_jit(function: Callable[..., Any], **options: Any) -> Any:
    """``gluon.jit``, or the function as it stands where Gluon is not installed and no kernel can be launched."""
    return function if gluon is None else gluon.jit(function, **options)


def interpreted() -> bool:
    """True where Triton interprets kernels on the CPU instead of compiling them."""
    return os.environ.get("TRITON_INTERPRET") == "1"


#: Whether no kernel of ours is to run.
_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """Inside, PyTorch's own operations compute what kernels of ours compute elsewhere."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


class DeviceFacts(NamedTuple):
    """What the choice of kernels asks about a GPU."""

    capability: tuple[int, int]
    multiprocessors: int


#: The GPU that tensors without contents are taken to be on; None where they are on none.
_absent: ContextVar[DeviceFacts | None] = ContextVar("absent", default=None)


@contextlib.contextmanager
def absent_gpu(facts: DeviceFacts) -> Iterator[None]:
    """Inside, tensors without contents (PyTorch's meta device) are taken to be on a GPU of these facts."""
    token = _absent.set(facts)
    try:
        yield
    finally:
        _absent.reset(token)


def on_gpu(tensor: torch.Tensor) -> bool:
    """True for a tensor on an NVIDIA GPU, though that be an `absent_gpu`."""
    return tensor.is_cuda or (tensor.is_meta and _absent.get() is not None)


def uses_triton(tensor: torch.Tensor) -> bool:
    """True where kernels for this tensor are Triton's: on a GPU, or anywhere under Triton's interpreter."""
    return triton is not None and not _plain.get() and (on_gpu(tensor) or interpreted())


@functools.cache
def device_facts(index: int) -> DeviceFacts:
    """The facts of the GPU of this index."""
    card = torch.cuda.get_device_properties(index)
    return DeviceFacts((card.major, card.minor), card.multi_processor_count)


def uses_hopper(tensor: torch.Tensor) -> bool:
    """True where the kernels written for Hopper's own instructions run: 16 bits or e4m3 on compute capability 9."""
    return (
        gluon is not None
        and not _plain.get()
        and on_gpu(tensor)
        and tensor.dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn)
        and capability(tensor)[0] == 9
    )


def capability(tensor: torch.Tensor) -> tuple[int, int]:
    """Compute capability of the tensor's GPU; (0, 0) on the CPU."""
    return _facts(tensor).capability if on_gpu(tensor) else (0, 0)


def multiprocessors(tensor: torch.Tensor) -> int:
    """Multiprocessors of the tensor's GPU."""
    return _facts(tensor).multiprocessors


def _facts(tensor: torch.Tensor) -> DeviceFacts:
    absent = _absent.get() if tensor.is_meta else None
    return absent or device_facts(tensor.get_device())


def launch_guard(tensor: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """The tensor's GPU as the current device: Triton launches on the current one, whatever its arguments live on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
