"""Tokens per batch out of free memory."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from virnucpro.config import CPU_TOKEN_BUDGET, MAX_TOKEN_BUDGET, VectorConfig
from virnucpro.errors import TryAgainError
from virnucpro.model.parameters import ParameterBuilder, dtype_of
from virnucpro.model.registry import MODELS, Esm2Config
from virnucpro.pipeline.async_inference import BATCHES_AHEAD
from virnucpro.pipeline.budget import (
    RESIDUE_BATCH_BYTES,
    RESIDUES_IN_FLIGHT,
    bytes_per_token,
    kept_bytes_per_token,
    token_budget,
    tokens_of_residues,
    tokens_that_fit,
    weight_bytes,
    whole_waves,
)
from virnucpro.pipeline.output_plan import OutputPlan

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "fp8"])
def test_the_budget_grows_with_memory_and_stays_within_it(name: str, precision: str) -> None:
    config = MODELS[name]
    budgets = []
    for gib in (4, 8, 24, 80, 140):
        try:
            tokens = tokens_that_fit(config, precision, gib << 30)
        except TryAgainError as error:
            assert name in str(error)
            continue
        budgets.append(tokens)
        assert weight_bytes(config, precision) + tokens * bytes_per_token(config, precision) < gib << 30
    assert budgets == sorted(budgets)
    assert budgets and budgets[-1] <= MAX_TOKEN_BUDGET


def test_weights_are_counted_as_the_checkpoints_have_them() -> None:
    # 651 M parameters of the published 650M encoder, in 16 bits.
    assert weight_bytes(MODELS["esm2_t33_650M_UR50D"], "fp16") == pytest.approx(2 * 649e6, rel=0.01)


def bytes_held(part: object) -> int:
    """Bytes of all tensors in a layer, rotary tables apart."""
    if isinstance(part, torch.Tensor):
        return part.nbytes
    if dataclasses.is_dataclass(part):
        return sum(bytes_held(getattr(part, field.name)) for field in dataclasses.fields(part))
    return sum(map(bytes_held, part)) if isinstance(part, tuple) else 0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "fp8"])
@pytest.mark.parametrize("fused", [True, False])
def test_weights_are_counted_as_the_layers_hold_them(precision: str, fused: bool) -> None:
    config = Esm2Config("wide", 1, 1280, 20)
    state = {name: torch.zeros(shape) for name, shape in config.shapes().items()}
    builder = ParameterBuilder(config, state, dtype_of(precision), CPU)
    layer = builder.form(precision, fused=fused)(0)
    assert weight_bytes(config, precision) == pytest.approx(bytes_held(layer), rel=0.005)


@pytest.mark.parametrize("multiprocessors", [132, 108, 58])
@pytest.mark.parametrize("tiles_across", [5, 15, 20])
def test_whole_waves_leave_no_multiprocessor_idle(multiprocessors: int, tiles_across: int) -> None:
    budget = whole_waves(MAX_TOKEN_BUDGET, multiprocessors)
    assert MAX_TOKEN_BUDGET - 128 * multiprocessors < budget <= MAX_TOKEN_BUDGET
    assert budget // 128 * tiles_across % multiprocessors == 0
    assert whole_waves(5000, multiprocessors) == 5000


def test_every_attempt_halves_what_was_asked_for() -> None:
    config = MODELS["esm2_t6_8M_UR50D"]
    assert [token_budget(config, "fp32", CPU, 1000, attempt) for attempt in (1, 2, 3)] == [1000, 500, 250]
    assert token_budget(config, "fp32", CPU, None, 1) == CPU_TOKEN_BUDGET
    assert token_budget(config, "fp32", CPU, 1, 4) == 1


@pytest.mark.parametrize("per_residue", [False, True])
def test_all_layers_of_3b_fit_a_card_of_24_gib(per_residue: bool) -> None:
    config = MODELS["esm2_t36_3B_UR50D"]
    plan = OutputPlan.of(36, VectorConfig(layers=tuple(range(37)), per_residue=per_residue))
    # 36 inner states in halves; and, with residues, 37 columns of halves for each of three batches.
    kept = (36 * 2 + 3 * 37 * 2 * per_residue) * 2560
    assert kept_bytes_per_token(config, "fp16", plan) == kept
    tokens = tokens_that_fit(config, "fp16", 24 << 30, plan)
    assert weight_bytes(config, "fp16") + tokens * (bytes_per_token(config, "fp16") + kept) < 24 << 30
    unmindful = tokens_that_fit(config, "fp16", 24 << 30)
    assert weight_bytes(config, "fp16") + unmindful * (bytes_per_token(config, "fp16") + kept) > 24 << 30


def test_the_last_layer_alone_costs_nothing_more() -> None:
    config = MODELS["esm2_t36_3B_UR50D"]
    assert kept_bytes_per_token(config, "fp16", OutputPlan.of(36, VectorConfig(pooling=("mean", "max")))) == 0


def test_residues_of_every_batch_in_flight_are_counted() -> None:
    assert RESIDUES_IN_FLIGHT == BATCHES_AHEAD + 1


@pytest.mark.parametrize("size", ["esm2_t6_8M_UR50D", "esm2_t33_650M_UR50D", "esm2_t36_3B_UR50D", "esm2_t48_15B_UR50D"])
@pytest.mark.parametrize("all_layers", [False, True])
def test_the_host_holds_a_batch_of_residues_in_bounded_memory(size: str, all_layers: bool) -> None:
    config = MODELS[size]
    layers = tuple(range(config.layers + 1)) if all_layers else (-1,)
    plan = OutputPlan.of(config.layers, VectorConfig(layers=layers, per_residue=True))
    tokens = tokens_of_residues(config, plan)
    per_token = 2 * config.embed_dim * len(plan.layers)
    assert RESIDUE_BATCH_BYTES - per_token < tokens * per_token <= RESIDUE_BATCH_BYTES
    assert token_budget(config, "fp32", CPU, None, 1, plan) == min(CPU_TOKEN_BUDGET, tokens)
    assert token_budget(config, "fp32", CPU, 10**6, 1, plan) == 10**6
    assert tokens_of_residues(config, OutputPlan.of(config.layers)) == MAX_TOKEN_BUDGET
