"""Makes an operation of a task's program compute wrongly, where the environment asks for it.

$VIRNUCPRO_WRONG is a JSON object: the function (``target``, such as ``virnucpro.kernels.attention:varlen_attention``)
whose tensor comes out multiplied by ``factor``, and ``where``: ``kernel``, if only where a kernel of ours computes it,
or ``everywhere``. Kernels run on the CPU where TRITON_INTERPRET=1.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


class Changed(MetaPathFinder):
    """Finds a module as Python does, and changes it once it is loaded."""

    def __init__(self, module: str, change: Callable[[Any], None]) -> None:
        self.module, self.change = module, change

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None and spec.loader is not None
        load = spec.loader.exec_module

        def load_changed(module: Any) -> None:
            load(module)
            self.change(module)

        spec.loader.exec_module = load_changed  # type: ignore[method-assign]
        return spec


def spoil(module: Any, name: str, factor: float, where: str) -> None:
    """Have a function of a module compute wrongly."""
    right = getattr(module, name)

    def wrong(*arguments: Any, **named: Any) -> Any:
        result = right(*arguments, **named)
        return result * factor if where == "everywhere" or module.uses_triton(arguments[0]) else result

    setattr(module, name, wrong)


def let_loops_take_arrays_of_one(interpreter: Any) -> None:
    """NumPy 2.4 and later refuse int() of a one-element array, which Triton 3.6's interpreter uses for loop bounds."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


if os.environ.get("TRITON_INTERPRET") == "1":
    sys.meta_path.insert(0, Changed("triton.runtime.interpreter", let_loops_take_arrays_of_one))
if _asked := json.loads(os.environ.get("VIRNUCPRO_WRONG", "null")):
    _module, _, _name = _asked["target"].partition(":")
    _change = lambda module: spoil(module, _name, _asked["factor"], _asked["where"])  # noqa: E731
    sys.meta_path.insert(0, Changed(_module, _change))
