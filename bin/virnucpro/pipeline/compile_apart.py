"""COMPILE_KERNELS: the kernels of a model compiled before EMBED_SHARD asks for them, in a process for each."""

from __future__ import annotations

import sys
import types

import torch

from virnucpro.config import CompileConfig
from virnucpro.errors import TryAgainError
from virnucpro.kernel_folder import kernel_folder, why_not_kept
from virnucpro.kernels.device import DeviceFacts
from virnucpro.kernels.launching import compiles_together, compiling_apart
from virnucpro.machine import usable_cores
from virnucpro.model.registry import Esm2Config
from virnucpro.pipeline.compile_ahead import compiling_alone, launch_all
from virnucpro.pipeline.forks import Forks
from virnucpro.pipeline.output_plan import OutputPlan


def compile_apart(config: CompileConfig, shape: Esm2Config, capabilities: set[tuple[int, int]]) -> None:
    """Keep what `compile_ahead` would compile for cards of these capabilities; no card is used, nor need be here.

    Where nothing can be kept, EMBED_SHARD says so.

    Raises:
        TryAgainError: some kernels could not be compiled; their own messages stand above.
    """
    folder = kernel_folder()
    if not capabilities or not compiles_together() or why_not_kept(folder):
        return
    _leave_out_dynamo()
    plan = OutputPlan.of(shape.layers, config)
    forks = Forks(usable_cores())
    for capability in sorted(capabilities):
        # The multiprocessors of a card decide how many programs are started, and nothing that is compiled.
        card = DeviceFacts(capability, 1)
        with compiling_alone(folder, shape, config.precision, capability), forks, compiling_apart(card, forks):
            launch_all(shape, config.precision, torch.device("meta"), plan)
    if forks.failed:
        raise TryAgainError(f"{forks.failed} kernels could not be compiled; EMBED_SHARD compiles them itself")
    (folder / config.mark).touch()


def _leave_out_dynamo() -> None:
    """Have PyTorch not import its compiler, from which it would only learn that the shape of a result is not to be
    compiled: most of a second."""
    stand_in = types.ModuleType("torch._dynamo")
    vars(stand_in)["disable"] = lambda function, *_, **__: function
    sys.modules.setdefault("torch._dynamo", stand_in)
