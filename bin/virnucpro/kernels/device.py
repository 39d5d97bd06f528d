"""Where a kernel runs: Triton on an NVIDIA GPU, plain PyTorch elsewhere. Nothing here asks CUDA anything at import."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable
from typing import Any

import torch

try:
    triton: Any = importlib.import_module("triton")
    tl: Any = importlib.import_module("triton.language")
except ImportError:
    triton = tl = None


def jit(function: Callable[..., Any]) -> Any:
    """``triton.jit``, or the function as it stands where Triton is not installed and no kernel can be launched."""
    return function if triton is None else triton.jit(function)


def uses_triton(tensor: torch.Tensor) -> bool:
    """True where kernels for this tensor are Triton's: on a GPU, or anywhere under Triton's interpreter."""
    return triton is not None and (tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1")


def launch_guard(tensor: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """The tensor's GPU as the current device: Triton launches on the current one, whatever its arguments live on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
