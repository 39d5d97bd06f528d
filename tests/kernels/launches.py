"""Every kernel that the model launches on a card, compiled without one: a program, one card a process.

    python launches.py CAPABILITY CASE...        a case is PRECISION:MODEL:LONGEST, as in fp16:650M:1026

PackedEsm2 itself is built and run on tensors without contents (PyTorch's FakeTensorMode), so that its own dispatch
chooses form, tiles, warps and stages; Triton then compiles for the card in place of launching. Prints one line of JSON
for each distinct binary, or for each launch or case that failed.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from triton.runtime.jit import JITFunction, MockTensor

from virnucpro.kernels import device
from virnucpro.kernels.device import DeviceFacts
from virnucpro.kernels.launching import AbsentDriver
from virnucpro.kernels.pooling import pool
from virnucpro.model import parameters
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.families import ESM_2, Family
from virnucpro.model.projections import RotaryTable
from virnucpro.model.registry import Esm2Config


class Card(NamedTuple):
    """What NVIDIA's tables say of a card; ``shared_memory`` are the bytes that a block may ask for."""

    facts: DeviceFacts
    shared_memory: int


#: By compute capability: multiprocessors, and KiB of shared memory for a block.
CARDS = {
    capability: Card(DeviceFacts(capability, multiprocessors), kibibytes << 10)
    for capability, multiprocessors, kibibytes in (
        ((7, 5), 40, 64),  # T4
        ((8, 0), 108, 163),  # A100
        ((8, 6), 84, 99),  # A10, A40
        ((8, 7), 16, 163),  # Orin
        ((8, 9), 142, 99),  # L4, L40S
        ((9, 0), 132, 227),  # H100, H200
        ((10, 0), 148, 227),  # B200
        ((10, 3), 160, 227),  # B300
        ((12, 0), 170, 99),  # RTX 5090, RTX PRO 6000
        ((12, 1), 48, 99),  # DGX Spark
    )
}
#: Width and heads by size.
MODELS = {"8M": (320, 20), "35M": (480, 20), "150M": (640, 20), "650M": (1280, 20), "3B": (2560, 40), "15B": (5120, 40)}
TOKENS, SEQUENCES = 118_272, 300


class Resources(NamedTuple):
    """What the assembler gave a kernel: registers of a thread, and bytes of its stack, where they did not suffice."""

    registers: int
    spilled: int


def resources(cubin: bytes) -> Resources:
    """Read off a binary by the tool that comes with Triton."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    assert found, text
    registers, stack, local = map(int, found.groups())
    return Resources(registers, stack + local)


class Compiler:
    """Stands in for `JITFunction.run`, and writes down what came of each launch."""

    def __init__(self, launch: Callable[..., Any]) -> None:
        self.launch = launch
        self.case: dict[str, object] = {}
        self.known: set[str] = set()

    def run(self, function: Any, *args: object, grid: object, warmup: bool = False, **options: Any) -> None:
        """Compile for the arguments' types in place of launching."""
        arguments = [MockTensor(each.dtype) if isinstance(each, FakeTensor) else each for each in args]
        row = self.case | {"kernel": function.fn.__name__.strip("_").removesuffix("_kernel")}
        try:
            with unset_fake_temporarily():
                kernel = self.launch(function, *arguments, grid=grid, warmup=True, **options)
        except Exception as error:
            report(row, error)
            return
        if kernel.hash in self.known:
            return
        self.known.add(kernel.hash)
        used = resources(kernel.asm["cubin"])
        tensor_cores = bool(re.search(r"\b(wgmma\.mma_async|tcgen05\.mma|mma\.sync)", kernel.asm["ptx"]))
        row |= {"shared_memory": kernel.metadata.shared, "tensor_cores": tensor_cores, **used._asdict()}
        print(json.dumps(row | {"hash": kernel.hash}), flush=True)


def report(row: dict[str, object], error: Exception) -> None:
    said = f"{type(error).__name__}: {str(error).strip()[-400:]}"
    print(json.dumps(row | {"error": said}), flush=True)


def pretend(card: Card) -> Compiler:
    """Make this process see the card: kernels are compiled for it, and tensors without contents are on it."""
    compiler = Compiler(JITFunction.run)
    triton.runtime.driver.set_active(AbsentDriver(card.facts.capability))
    JITFunction.run = lambda function, *args, **options: compiler.run(function, *args, **options)
    FakeTensor.data_ptr = lambda tensor: 1 << 20
    device.device_facts = lambda index: card.facts
    torch.cuda.device = lambda index: contextlib.nullcontext()
    # Both look into tensors for their contents.
    parameters.hidden_factor = lambda *_: 1.0
    parameters.ParameterBuilder._rotary = lambda builder, index: RotaryTable(
        builder._take(parameters.inv_freq_key(index), torch.float32)
    )
    return compiler


def run_model(precision: str, size: str, longest: int, fused: bool | None = None, family: Family = ESM_2) -> str:
    """One layer, the norm after it and the poolings; returns the form that the layer had."""
    width, heads = MODELS[size]
    config = Esm2Config(size, 1, width, heads, family=family)
    with FakeTensorMode(allow_non_fake_inputs=True):
        shapes = {parameters.inv_freq_key(0): (config.head_dim // 2,), **config.shapes()}
        state = {key: torch.empty(shape, device="cuda") for key, shape in shapes.items()}
        model = PackedEsm2.from_state(config, state, precision, "cuda", fused=fused)
        ids = torch.empty(TOKENS, dtype=torch.long, device="cuda")
        bounds = torch.empty(SEQUENCES + 1, dtype=torch.int32, device="cuda")
        positions = torch.empty(TOKENS, dtype=torch.int32, device="cuda")
        states = model.forward(ids, bounds, positions, longest, [0, 1], masked=False)
        for mode in ("mean", "max"):
            pool(states[1], bounds, mode)
        pool(states[0], bounds, "mean")
    return type(model._layers[0]).__name__


def main() -> int:
    """Compile the cases named on the command line."""
    major, minor = map(int, sys.argv[1].split("."))
    compiler = pretend(CARDS[major, minor])
    for case in sys.argv[2:]:
        precision, size, longest = case.split(":")
        compiler.case = {"card": sys.argv[1], "precision": precision, "model": size, "longest": int(longest)}
        try:
            form = run_model(precision, size, int(longest))
        except Exception as error:
            report(compiler.case, error)
        else:
            print(json.dumps(compiler.case | {"form": form}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
