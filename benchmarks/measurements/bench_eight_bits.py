"""What 8-bit products cost in accuracy, whoever computes them: fair-esm in fp32 with rounded operands.

The inputs and weights of chosen linear layers are rounded to 8 bits row by row, each row scaled by its greatest
magnitude, and back; everything else stays fp32. So the figures are of the number format and the choice of layers, not
of a kernel. Writes ``benchmarks/results/eight-bits-<name>.csv``.

    python -m benchmarks.measurements.bench_eight_bits FASTA --size 650M              # random weights, sharpened
    python -m benchmarks.measurements.bench_eight_bits FASTA --checkpoint CHECKPOINT
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from benchmarks.environment import RESULTS, conditions, write_csv
from benchmarks.inputs import SHAPES
from benchmarks.peers.bench_parity import compare, reference_of, reference_states, sample_proteins

from virnucpro.kernels.fp8_linear import quantise_rows, restored

#: Projections of a layer and their share of its products' operations, in twelfths.
TWELFTHS = {"q_proj": 1, "k_proj": 1, "v_proj": 1, "out_proj": 1, "fc1": 4, "fc2": 4}
FEED_FORWARD = ("fc1", "fc2")
CHOICES: tuple[tuple[str, ...], ...] = (
    ("q_proj", "k_proj"),
    ("v_proj",),
    ("out_proj",),
    ("fc1",),
    ("fc2",),
    FEED_FORWARD,
    ("v_proj", *FEED_FORWARD),
    ("q_proj", "k_proj", "v_proj", *FEED_FORWARD),
    tuple(TWELFTHS),
)


def e4m3_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows rounded to e4m3 with one scale each."""
    return restored(quantise_rows(x.flatten(0, -2))).view_as(x)


def int8_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows rounded to 255 even steps with one scale each."""
    scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
    return (x / scale).round() * scale


@functools.cache
def rotation(width: int, device: torch.device) -> torch.Tensor:
    """A random orthogonal matrix, always the same for a width."""
    gaussian = torch.randn(width, width, generator=torch.Generator().manual_seed(width), dtype=torch.float64)
    return torch.linalg.qr(gaussian)[0].float().to(device)


def rotated_int8_rows(x: torch.Tensor) -> torch.Tensor:
    """`int8_rows` in a basis in which no channel is larger than the others.

    Inputs and weights turned alike have the same product (Ashkboos et al., QuaRot, 2024).
    """
    turn = rotation(x.shape[-1], x.device)
    return int8_rows(x @ turn) @ turn.T


FORMATS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "e4m3": e4m3_rows,
    "int8": int8_rows,
    "int8, rotated": rotated_int8_rows,
}


@contextmanager
def rounded(model: Any, names: Sequence[str], to_eight_bits: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Inside, the named projections of every layer have their inputs and weights rounded."""
    with torch.no_grad(), ExitStack() as stack:
        for name, module in model.layers.named_modules():
            if name.split(".")[-1] in names:
                exact = module.weight.clone()
                module.weight.copy_(to_eight_bits(exact))
                hook = module.register_forward_pre_hook(lambda _, inputs: (to_eight_bits(inputs[0]),))
                stack.callback(module.weight.copy_, exact)
                stack.callback(hook.remove)
        yield


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--size", choices=SHAPES, default="650M")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--sequences", type=int, default=40)
    parser.add_argument("--max-length", type=int, default=500)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device(options.device)
    sequences = sample_proteins(options.fasta, options.sequences, options.max_length)
    model, spread = reference_of(options.size, options.checkpoint, sequences, device)
    truth = reference_states(model, sequences, device)
    name = options.checkpoint.name if options.checkpoint else options.size
    rows = []
    for kind, to_eight_bits in FORMATS.items():
        for choice in CHOICES:
            with rounded(model, choice, to_eight_bits):
                figures = compare(reference_states(model, sequences, device), truth)
            row = {
                "model": name,
                "weights": "trained" if options.checkpoint else "random, sharpened",
                "logit_deviation": spread,
                "format": kind,
                "products": " ".join(choice),
                "share_of_products": sum(TWELFTHS[projection] for projection in choice) / sum(TWELFTHS.values()),
                "sequences": len(sequences),
                **figures,
            }
            rows.append(row | {"data": options.fasta.name} | conditions())
            print(f"{name} {kind} {row['products']:40s} cosine {figures['pooled_cosine_min']:.6f}", flush=True)
    write_csv(options.out or RESULTS / f"eight-bits-{name}.csv", rows)


if __name__ == "__main__":
    main()
