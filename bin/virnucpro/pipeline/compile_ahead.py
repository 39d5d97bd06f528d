"""What the device does beside the reading of the weights: kernels are compiled, and its limit is measured.

Kernels are compiled all at once, and kept in a folder that can be written.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import torch

from virnucpro.data.packed_batch import PackedBatch
from virnucpro.data.tokens import X
from virnucpro.kernel_folder import kernel_folder, why_not_kept
from virnucpro.kernels.launching import compiles_together, compiling_together
from virnucpro.locks import first_of_all
from virnucpro.machine import usable_cores
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.parameters import inv_freq_key
from virnucpro.model.registry import Esm2Config
from virnucpro.pipeline.engine import Engine
from virnucpro.pipeline.matrix_rate import matrix_teraflops
from virnucpro.pipeline.output_plan import OutputPlan
from virnucpro.plain_text import visible

#: Tokens of the longest sequence of a batch, one for each row of the tables of tiles.
LONGEST: Final = (100, 200, 400, 1026)
#: Seconds to wait for another process that compiles the same: some times what the slowest model takes one core.
LONGEST_WAIT: Final = 300


class Prepared:
    """A device made ready on a thread of its own, from the shape of the model alone."""

    def __init__(self, config: Esm2Config, precision: str, device: torch.device, plan: OutputPlan) -> None:
        pool = ThreadPoolExecutor(1, "prepare")
        # First, while nothing else computes on the device.
        self._teraflops: Future[float | None] = pool.submit(matrix_teraflops, device, precision)
        self._compiled = pool.submit(compile_ahead, config, precision, device, plan)
        pool.shutdown(wait=False)

    def compiled(self) -> None:
        """Wait until the model's kernels are compiled, and raise what that raised."""
        self._compiled.result()

    def matrix_teraflops(self) -> float | None:
        """What `matrix_rate.matrix_teraflops` gave."""
        return self._teraflops.result()


class _Unset(Mapping[str, torch.Tensor]):
    """A state dict of zeros, each made as it is read; rotary frequencies too of a family that has none of its own."""

    def __init__(self, config: Esm2Config, device: torch.device) -> None:
        frequencies = dict.fromkeys(map(inv_freq_key, range(config.layers)), (config.head_dim // 2,))
        self._shapes: dict[str, tuple[int, ...]] = {**frequencies, **config.shapes()}
        self._device = device

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.zeros(self._shapes[key], device=self._device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def compile_ahead(config: Esm2Config, precision: str, device: torch.device, plan: OutputPlan) -> None:
    """Compile what batches of any length launch, where it is not kept from earlier, and load it on the device.

    Nothing is done on the CPU, without memory for one layer, or where this Triton cannot compile on several threads:
    kernels are then compiled as they are first launched.
    """
    if device.type != "cuda" or not compiles_together():
        return
    folder = _find_folder()
    capability = torch.cuda.get_device_capability(device)
    try:
        with (
            torch.cuda.device(device),
            compiling_alone(folder, config, precision, capability),
            compiling_together(device, usable_cores()),
        ):
            launch_all(config, precision, device, plan)
    except torch.OutOfMemoryError:
        return


def launch_all(config: Esm2Config, precision: str, device: torch.device, plan: OutputPlan) -> None:
    """Launch what batches of any length launch, of one layer, on tensors whose contents mean nothing."""
    layers = tuple(sorted({int(layer == config.layers) for layer in plan.layers}))
    shallow = dataclasses.replace(config, layers=1)
    model = PackedEsm2.from_state(shallow, _Unset(shallow, device), precision, device)
    engine = Engine(model, device, OutputPlan(layers, plan.pooling), streams=False)
    for longest in (min(each, config.family.positions or each) for each in LONGEST):
        bounds = torch.tensor([0, longest, longest + 5], dtype=torch.int32, device=device)
        ids = torch.full((longest + 5,), X, device=device)
        engine.forward(PackedBatch(ids, bounds, longest, ("0", "1")), masked=False)


def compiling_alone(
    folder: Path, config: Esm2Config, precision: str, capability: tuple[int, int]
) -> AbstractContextManager[None]:
    """Where one of several processes that start at once compiles a model's kernels for a kind of card, and the others
    wait and then find in the folder what it kept."""
    name = f"virnucpro-{config.embed_dim}x{config.heads}-{precision}-{capability[0]}.{capability[1]}.lock"
    return first_of_all(folder / name, LONGEST_WAIT)


def _find_folder() -> Path:
    """Have Triton keep kernels where it is told to, or, where nothing can be written there, in a folder of this task.

    Says so once in the latter case; the folder goes with the process. Returns the one that it is.
    """
    folder = kernel_folder()
    error = why_not_kept(folder)
    if error is None:
        return folder
    own = tempfile.mkdtemp(prefix="virnucpro-kernels-")
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    os.environ["TRITON_CACHE_DIR"] = own
    told = f"cannot keep compiled kernels in {folder} ({error.strerror}), so that this task compiles its own"
    print(f"{visible(told)}; name another folder with --triton_cache, or in TRITON_CACHE_DIR", file=sys.stderr)
    return Path(own)
