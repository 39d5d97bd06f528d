"""Kernels compiled before the first batch: in a folder that can be written, and all at once."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import torch

from virnucpro.data.packed_batch import PackedBatch
from virnucpro.data.tokens import X
from virnucpro.kernels.launching import compiles_together, compiling_together
from virnucpro.machine import usable_cores
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.pipeline.engine import Engine
from virnucpro.pipeline.output_plan import OutputPlan
from virnucpro.plain_text import visible

#: Tokens of the longest sequence of a batch, one for each row of the tables of tiles.
LONGEST: Final = (100, 200, 400, 1026)
#: Bytes that the kernels of one model may take, and more.
NEEDED_BYTES: Final = 4 << 20


def compile_ahead(model: PackedEsm2, device: torch.device, plan: OutputPlan) -> None:
    """Compile what batches of any length launch, where it is not kept from earlier, and load it on the device.

    Nothing is done on the CPU, for a plain model, or where this Triton cannot compile on several threads: kernels are
    then compiled as they are first launched.
    """
    if device.type != "cuda" or model.plain or not compiles_together():
        return
    _find_folder()
    depth = model.config.layers
    layers = tuple(sorted({int(layer == depth) for layer in plan.layers}))
    engine = Engine(model.shallow(), device, OutputPlan(layers, plan.pooling), streams=False)
    with torch.cuda.device(device), compiling_together(device, usable_cores()):
        for longest in LONGEST:
            bounds = torch.tensor([0, longest, longest + 5], dtype=torch.int32, device=device)
            ids = torch.full((longest + 5,), X, device=device)
            engine.forward(PackedBatch(ids, bounds, longest, ("0", "1")), masked=False)


def _find_folder() -> None:
    """Have Triton keep kernels where it is told to, or, where nothing can be written there, in a folder of this task.

    Says so once in the latter case; the folder goes with the process.
    """
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(NEEDED_BYTES))
    except OSError as error:
        own = tempfile.mkdtemp(prefix="virnucpro-kernels-")
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        os.environ["TRITON_CACHE_DIR"] = own
        told = f"cannot keep compiled kernels in {folder} ({error.strerror}), so that this task compiles its own"
        print(f"{visible(told)}; name another folder with --triton_cache", file=sys.stderr)
