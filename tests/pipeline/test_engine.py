"""The engine: outputs, split batches, lost devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pipeline.models import batch_of, fair_esm_mean, random_sequences, small_esm2

from virnucpro.config import VectorConfig
from virnucpro.data.packed_batch import PackedBatch
from virnucpro.errors import TryAgainError, UsageError
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.pipeline import engine as engine_module
from virnucpro.pipeline.engine import Engine
from virnucpro.pipeline.output_plan import OutputPlan

CPU = torch.device("cpu")
MEAN = OutputPlan((2,), ("mean",))


class SmallMemory(PackedEsm2):
    """A model on a device that holds ``limit`` tokens of activations."""

    limit = 0
    refused = 0
    error: Exception = torch.OutOfMemoryError("CUDA out of memory.")

    def forward(self, ids_T: torch.Tensor, *others: Any) -> dict[int, torch.Tensor]:
        if len(ids_T) > self.limit:
            self.refused += 1
            raise self.error
        return super().forward(ids_T, *others)


def run(engine: Engine, batch: PackedBatch) -> torch.Tensor:
    return engine.collect(engine.submit(batch)).vectors["embedding"]


def test_vectors_equal_fair_esm_for_the_first_and_later_batches() -> None:
    reference = small_esm2()
    engine = Engine(PackedEsm2.from_fair_esm(reference), CPU, MEAN)
    for seed in range(3):
        sequences = random_sequences(7, seed)
        vectors = run(engine, batch_of(sequences))
        expected = torch.stack([fair_esm_mean(reference, s) for s in sequences])
        torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.faults(
    "a batch that does not fit into the device's memory", "the engine", "computed in halves; the same vectors"
)
@pytest.mark.parametrize("limit", [45, 90, 200])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_a_batch_that_does_not_fit_is_split_until_it_does(limit: int, error: Exception) -> None:
    sequences = random_sequences(23, 1)
    model = SmallMemory.from_fair_esm(small_esm2())
    model.limit = 1 << 30
    whole = run(Engine(model, CPU, MEAN), batch_of(sequences))
    model.limit = limit
    model.error = error
    output = Engine(model, CPU, MEAN)
    halves = output.collect(output.submit(batch_of(sequences)))
    torch.testing.assert_close(halves.vectors["embedding"], whole, rtol=1e-5, atol=1e-6)
    assert halves.batch.sequence_ids == tuple(f"s{i}" for i in range(23))
    assert halves.retries >= 1


def test_a_batch_that_did_not_fit_teaches_the_next_ones() -> None:
    model = SmallMemory.from_fair_esm(small_esm2())
    engine = Engine(model, CPU, MEAN)
    model.limit = 1 << 30
    batches = [batch_of(random_sequences(23, seed)) for seed in range(4)]
    whole = [run(engine, batch) for batch in batches]
    model.limit = max(batch.tokens for batch in batches) // 3
    outputs = [engine.collect(engine.submit(batch)) for batch in batches]
    assert outputs[0].retries == model.refused > 0
    assert [output.retries for output in outputs[1:]] == [0, 0, 0]
    for batch, output, expected in zip(batches, outputs, whole, strict=True):
        torch.testing.assert_close(output.vectors["embedding"], expected, rtol=1e-5, atol=1e-6)
        assert output.batch.sequence_ids == batch.sequence_ids


def test_a_sequence_that_does_not_fit_alone_is_named() -> None:
    model = SmallMemory.from_fair_esm(small_esm2())
    model.limit = 30
    sequences = ["MKT", "A" * 40, "MK"]
    with pytest.raises(TryAgainError, match=r"sequence s1 of 40 residues does not fit"):
        Engine(model, CPU, MEAN).submit(batch_of(sequences))


@pytest.mark.faults("a lost device", "the engine", "75")
def test_a_lost_device_can_be_tried_again() -> None:
    model = SmallMemory.from_fair_esm(small_esm2())
    model.error = RuntimeError("CUDA error: uncorrectable ECC error encountered\nCompile with ...")
    with pytest.raises(TryAgainError, match="uncorrectable ECC error encountered; the task can be tried again"):
        Engine(model, CPU, MEAN).submit(batch_of(["MKT"]))


def test_other_faults_stay_what_they_are() -> None:
    model = SmallMemory.from_fair_esm(small_esm2())
    model.error = RuntimeError("shape mismatch")
    with pytest.raises(RuntimeError, match="shape mismatch"):
        Engine(model, CPU, MEAN).submit(batch_of(["MKT"]))


def test_several_layers_and_poolings_and_residues() -> None:
    reference = small_esm2(layers=3)
    plan = OutputPlan.of(3, VectorConfig(layers=(0, -1, 1), pooling=("mean", "max", "bos"), per_residue=True))
    engine = Engine(PackedEsm2.from_fair_esm(reference), CPU, plan)
    output = engine.collect(engine.submit(batch_of(["MKTAYI", "GG"])))
    assert list(output.vectors) == [
        f"embedding_{pooling}_layer{layer}" for pooling in ("mean", "max", "bos") for layer in (0, 3, 1)
    ]
    _, _, tokens = reference.alphabet.get_batch_converter()([("s", "MKTAYI")])
    with torch.no_grad():
        states = reference(tokens, repr_layers=[0, 1, 3])["representations"]
    for layer in (0, 1, 3):
        inner = states[layer][0, 1:7]
        expected = {"mean": inner.mean(0), "max": inner.amax(0), "bos": states[layer][0, 0]}
        for pooling, vector in expected.items():
            got = output.vectors[f"embedding_{pooling}_layer{layer}"][0]
            torch.testing.assert_close(got, vector, rtol=1e-4, atol=1e-5)
    assert [list(r) for r in output.residues] == [["residues_layer0", "residues_layer3", "residues_layer1"]] * 2
    for layer in (0, 3, 1):
        residues = output.residues[0][f"residues_layer{layer}"]
        torch.testing.assert_close(residues.float(), states[layer][0, 1:7], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("tokens_at_once", [1, 7, 8, 12, 13, 10**6])
def test_residues_are_those_of_their_sequence_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch, tokens_at_once: int
) -> None:
    reference = small_esm2()
    sequences = ["MKTAYI", "GG", "MKTAYIAKQR", "W"]
    model = PackedEsm2.from_fair_esm(reference)
    plan = OutputPlan.of(2, VectorConfig(layers=(0, -1), per_residue=True))
    monkeypatch.setattr(engine_module, "RESIDUE_BLOCK_BYTES", tokens_at_once * 32 * 2)
    engine = Engine(model, CPU, plan)
    output = engine.collect(engine.submit(batch_of(sequences)))
    assert [len(found["residues_layer2"]) for found in output.residues] == [6, 2, 10, 1]
    for found in output.residues:
        assert list(found) == ["residues_layer0", "residues_layer2"]
    means = torch.stack([found["residues_layer2"].float().mean(0) for found in output.residues])
    torch.testing.assert_close(means, output.vectors["embedding_mean_layer2"], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("layer", [-5, 4])
def test_a_layer_outside_the_model_is_named(layer: int) -> None:
    with pytest.raises(UsageError, match=f"--layers holds {layer}, but the model has layers 0 to 3"):
        OutputPlan.of(3, VectorConfig(layers=(layer,)))


def test_a_pooling_that_there_is_not_is_named() -> None:
    with pytest.raises(UsageError, match="--pooling is 'median', but must be one of mean, bos, max"):
        VectorConfig(pooling=("mean", "median"))
    engine = Engine(PackedEsm2.from_fair_esm(small_esm2()), CPU, OutputPlan((2,), ("median",)))
    with pytest.raises(ValueError, match="pooling 'median' is not one of mean, max, bos"):
        engine.submit(batch_of(["MKT"]))


@pytest.mark.gpu
def test_streams_change_no_number_of_any_batch() -> None:
    device = torch.device("cuda")
    model = PackedEsm2.from_fair_esm(small_esm2(layers=4, dim=128, heads=4), "fp16", device)
    batches = [batch_of(random_sequences(200, seed, longest=300)).pin_memory() for seed in range(8)]
    outputs = {}
    for streams in (True, False):
        engine = Engine(model, device, OutputPlan((4,), ("mean",)), streams=streams)
        flights = [engine.submit(batch) for batch in batches]
        outputs[streams] = [engine.collect(flight).vectors["embedding"] for flight in flights]
    for on, off in zip(outputs[True], outputs[False], strict=True):
        assert torch.equal(on, off)
