"""Every kernel and its plain-PyTorch twin take the same arguments, and neither drops one."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from kernel_reference import boundaries, random, rotation_of

import virnucpro.kernels
from virnucpro.kernels import hopper_linear
from virnucpro.kernels.attention import varlen_attention
from virnucpro.kernels.fused_linear import row_statistics_ref
from virnucpro.kernels.high_low import HighLow
from virnucpro.kernels.hopper_epilogue import BIAS, GELU, RESIDUAL, ROTARY
from virnucpro.kernels.pooling import pool, pool_ref
from virnucpro.kernels.rotary import Rotation

interpreting = os.environ.get("TRITON_INTERPRET") == "1"
#: Arguments that change how fast a kernel is and nothing of what it gives.
TUNING = {"tiles"}
LENGTHS = [5, 4, 3]
TOKENS, HEADS, WIDTH = sum(LENGTHS), 2, 32


def pairs() -> Iterator[tuple[str, Callable[..., Any], Callable[..., Any]]]:
    for module in pkgutil.iter_modules(virnucpro.kernels.__path__):
        members = vars(importlib.import_module(f"virnucpro.kernels.{module.name}"))
        for name, kernel in members.items():
            twin = members.get(f"{name.rstrip('_')}_ref{'_' if name.endswith('_') else ''}")
            if twin is not None and kernel.__module__ == twin.__module__ == f"virnucpro.kernels.{module.name}":
                yield name, kernel, twin


PAIRS = {name: (kernel, twin) for name, kernel, twin in pairs()}


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    found = inspect.signature(function).parameters
    return {name: (each.kind, each.default) for name, each in found.items() if name not in TUNING}


def stream(seed: int = 0) -> torch.Tensor:
    return 3 * random(TOKENS, WIDTH, seed=seed) + 0.5


def quantised(rows: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return random(rows, width, seed=seed).to(torch.float8_e4m3fn), random(rows, 1, seed=seed).abs() + 0.5


def rotation() -> Rotation:
    return rotation_of(LENGTHS, WIDTH // HEADS // 2)


def vectors(*sizes: int) -> tuple[torch.Tensor, ...]:
    return tuple(random(size, seed=size) for size in sizes)


def statistics() -> torch.Tensor:
    return row_statistics_ref(stream())


def weight(outputs: int, features: int = WIDTH) -> HighLow:
    return HighLow(random(outputs, features, seed=outputs))


def scaled(outputs: int) -> tuple[torch.Tensor, ...]:
    return stream(), random(TOKENS).abs(), random(outputs, WIDTH), random(outputs, seed=1), random(outputs, seed=2)


#: The arguments of each kernel that must be given, made anew for each call, as it may change them.
ARGUMENTS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "add_layer_norm": lambda: (stream(), stream(1), *vectors(WIDTH, WIDTH)),
    "add_layer_norm_quantise": lambda: (stream(), stream(1), *vectors(WIDTH, WIDTH)),
    "fp8_linear": lambda: (quantised(TOKENS, WIDTH, 1), quantised(48, WIDTH, 2), random(48).bfloat16()),
    "fp8_linear_residual_": lambda: (
        stream().bfloat16(), quantised(TOKENS, WIDTH, 1), statistics(), random(TOKENS, 48),
        random(WIDTH, 48), random(WIDTH, 1), random(WIDTH),
    ),
    "fp8_norm_linear_gelu": lambda: (
        quantised(TOKENS, WIDTH, 1), statistics(), quantised(48, WIDTH, 2), random(48), 8.0
    ),
    "fp8_norm_linear_rotary": lambda: (
        quantised(TOKENS, WIDTH, 1), statistics(), quantised(3 * WIDTH, WIDTH, 2), random(3 * WIDTH), rotation()
    ),
    "gelu_quantise": lambda: (stream(),),
    "linear_gelu": lambda: (stream(), random(48, WIDTH), random(48)),
    "linear_residual_": lambda: (HighLow(stream()), random(TOKENS, 48), weight(WIDTH, 48), random(WIDTH)),
    "norm_linear_gelu": lambda: (HighLow(stream()), statistics(), weight(48), random(48)),
    "norm_linear_rotary": lambda: (
        HighLow(stream().bfloat16()), statistics(), weight(3 * WIDTH), random(3 * WIDTH), rotation()
    ),
    "pool": lambda: (stream(), boundaries(LENGTHS), "mean"),
    "rotary_": lambda: (random(TOKENS, 3 * WIDTH), rotation(), HEADS),
    "row_scale": lambda: (stream(), random(WIDTH)),
    "row_statistics": lambda: (stream(),),
    "scaled_linear_gelu": lambda: scaled(48),
    "scaled_linear_rotary": lambda: (*scaled(3 * WIDTH), rotation()),
    "varlen_attention": lambda: (random(TOKENS, 3 * WIDTH), boundaries(LENGTHS), max(LENGTHS), HEADS, 0.25),
}  # fmt: skip

#: For each optional argument another value than the one it has unless given.
OPTIONS: dict[tuple[str, str], Any] = {
    ("add_layer_norm", "eps"): 10.0,
    ("add_layer_norm", "out_dtype"): torch.float64,
    ("add_layer_norm", "shift_D"): random(WIDTH, seed=9),
    ("add_layer_norm_quantise", "eps"): 10.0,
    ("fp8_linear_residual_", "eps"): 10.0,
    ("fp8_norm_linear_gelu", "eps"): 10.0,
    ("fp8_norm_linear_rotary", "eps"): 10.0,
    ("norm_linear_gelu", "eps"): 10.0,
    ("norm_linear_rotary", "eps"): 10.0,
    ("norm_linear_rotary", "low_parts"): True,
    ("rotary_", "adjacent"): True,
    ("row_scale", "eps"): 10.0,
    ("row_statistics", "chunks"): 3,
    ("varlen_attention", "low_T2D"): 0.03 * random(TOKENS, 2 * WIDTH, seed=9),
}


def tensors(values: Any) -> list[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        return [values]
    return [tensor for value in values for tensor in tensors(value)] if isinstance(values, tuple) else []


def called(function: Callable[..., Any], arguments: tuple[Any, ...], **options: Any) -> list[torch.Tensor]:
    """What the call gives and what it leaves in its arguments."""
    given = function(*arguments, **options)
    return [*tensors(given), *tensors(arguments)]


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return False
    # Triton's interpreter rounds e4m3 wrongly where the exponent changes.
    wrong = interpreting and ours.dtype == torch.float8_e4m3fn
    return wrong or torch.allclose(ours.double(), theirs.double(), rtol=2e-2, atol=1e-3)


def alike(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return len(ours) == len(theirs) and all(map(close, ours, theirs))


def test_every_kernel_with_a_twin_is_tested_here() -> None:
    assert sorted(PAIRS) == sorted(ARGUMENTS)
    optional = {
        (name, parameter)
        for name, (kernel, _) in PAIRS.items()
        for parameter, (_, default) in parameters(kernel).items()
        if default is not inspect.Parameter.empty
    }
    assert optional == set(OPTIONS)


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_twins_take_the_same_arguments(name: str) -> None:
    kernel, twin = PAIRS[name]
    assert parameters(kernel) == parameters(twin)


@pytest.mark.interpreted
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_twins_give_the_same(name: str) -> None:
    kernel, twin = PAIRS[name]
    assert alike(called(kernel, ARGUMENTS[name]()), called(twin, ARGUMENTS[name]()))


@pytest.mark.interpreted
@pytest.mark.parametrize(("name", "option"), sorted(OPTIONS))
def test_no_option_is_dropped(name: str, option: str) -> None:
    kernel, twin = PAIRS[name]
    chosen = {option: OPTIONS[name, option]}
    with_it = called(kernel, ARGUMENTS[name](), **chosen)
    assert alike(with_it, called(twin, ARGUMENTS[name](), **chosen))
    without = called(kernel, ARGUMENTS[name]())
    same = [torch.equal(a.double(), b.double()) and a.dtype == b.dtype for a, b in zip(with_it, without, strict=False)]
    assert len(with_it) != len(without) or not all(same)


@pytest.mark.interpreted
@pytest.mark.parametrize("pooling", [pool, pool_ref])
@pytest.mark.parametrize("mode", ["sum", "min", "Mean", "", "cls"])
def test_a_pooling_that_there_is_not_is_refused(pooling: Callable[..., Any], mode: str) -> None:
    with pytest.raises(ValueError, match=f"pooling '{mode}' is not one of mean, max, bos"):
        pooling(stream(), boundaries(LENGTHS), mode)


@pytest.mark.interpreted
def test_low_parts_that_attention_cannot_read_are_refused() -> None:
    with pytest.raises(ValueError, match="a head dimension that is a power of two, not 24"):
        varlen_attention(random(3, 144), boundaries([3]), 3, 2, 1.0, random(3, 96))


@pytest.mark.parametrize(
    ("epilogue", "low", "half", "options", "message"),
    [
        (7, False, None, {}, "epilogue 7 is none of"),
        (GELU, False, 8, {}, "a rotation is for the epilogue ROTARY"),
        (ROTARY, False, None, {}, "a rotation is for the epilogue ROTARY, and that needs one"),
        (RESIDUAL, False, None, {}, "needs statistics"),
        (BIAS, False, None, {"copy_MN": torch.ones(1)}, "copy is for the epilogue RESIDUAL"),
        (GELU, True, None, {}, "low parts are for the epilogues"),
        (ROTARY, True, 12, {}, "head dimension of 16, 32, 64, 128"),
    ],
)
def test_what_an_epilogue_would_not_heed_is_refused(
    epilogue: int, low: bool, half: int | None, options: dict[str, Any], message: str
) -> None:
    out = HighLow(stream(), stream() if low else None)
    turn = None if half is None else rotation_of(LENGTHS, half)
    with pytest.raises(ValueError, match=message):
        hopper_linear.launch(HighLow(stream()), weight(WIDTH), random(WIDTH), out, epilogue, rotation=turn, **options)
