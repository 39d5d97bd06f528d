"""Where the kernels are tested: interpreted on the CPU in a process of its own, and on a GPU."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("torch")
import torch

interpreting = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "interpreted: runs Triton kernels on the CPU; only with TRITON_INTERPRET=1")
    if interpreting:
        _let_loops_take_arrays_of_one()


def _let_loops_take_arrays_of_one() -> None:
    """NumPy 2.4 and later refuse int() of a one-element array, which Triton 3.6's interpreter uses for loop bounds."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


@pytest.fixture(
    params=[pytest.param("cpu", marks=pytest.mark.interpreted), pytest.param("cuda", marks=pytest.mark.gpu)]
)
def kernel_device(request: pytest.FixtureRequest) -> str:
    if request.param == "cpu" and not interpreting:
        pytest.skip("runs in the child process of test_interpreted.py")
    if request.param == "cpu" and request.node.callspec.params.get("dtype") is torch.bfloat16:
        pytest.skip("Triton's interpreter truncates to bf16 where a GPU rounds")
    if request.param == "cuda" and (interpreting or not torch.cuda.is_available()):
        pytest.skip("no NVIDIA GPU")
    return request.param
