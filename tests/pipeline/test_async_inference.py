"""The runner: order, conservation, repair of vectors that are not finite, statistics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline.models import batch_of, fair_esm_mean, random_sequences, small_esm2

from virnucpro.data.packed_batch import PackedBatch
from virnucpro.errors import DataError, UsageError
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.pipeline import AsyncInferenceRunner
from virnucpro.pipeline.async_inference import BATCHES_AHEAD, run_async_inference

TRYPTOPHAN = 22


class Overflowing(PackedEsm2):
    """A model whose 16-bit arithmetic overflows in sequences that hold tryptophan."""

    def forward(self, ids_T: torch.Tensor, *others: Any) -> dict[int, torch.Tensor]:
        states = super().forward(ids_T, *others)
        return {layer: x.masked_fill((ids_T == TRYPTOPHAN)[:, None], float("inf")) for layer, x in states.items()}


def batches(groups: int = 4) -> list[PackedBatch]:
    return [batch_of(random_sequences(5, seed)) for seed in range(groups)]


def dicts(groups: int = 4) -> list[dict[str, Any]]:
    return [batch.to_dict() for batch in batches(groups)]


def runner(model: Any = None, **options: Any) -> AsyncInferenceRunner:
    return AsyncInferenceRunner(model or small_esm2(), "cpu", monitor_interval=0, **options)


def test_results_keep_the_order_of_the_loader_and_lose_nothing() -> None:
    results = list(runner().run(dicts(7)))
    assert [result.batch_idx for result in results] == list(range(7))
    assert [len(result.sequence_ids) for result in results] == [5] * 7
    reference = small_esm2()
    for seed, result in enumerate(results):
        expected = torch.stack([fair_esm_mean(reference, s) for s in random_sequences(5, seed)])
        torch.testing.assert_close(result.embeddings, expected, rtol=1e-4, atol=1e-5)


def test_no_batches_give_no_results() -> None:
    empty = runner()
    assert list(empty.run([])) == []
    assert empty.get_statistics()["total_sequences"] == 0


def test_batches_are_submitted_ahead_of_the_results() -> None:
    handed_out = 0

    def loader() -> Iterator[dict[str, Any]]:
        nonlocal handed_out
        for batch in dicts(6):
            handed_out += 1
            yield batch

    results = runner().run(loader())
    next(results)
    assert handed_out == BATCHES_AHEAD + 1


def test_vectors_that_are_not_finite_are_computed_again_and_named() -> None:
    reference = small_esm2()
    repaired = runner(
        Overflowing.from_fair_esm(reference, "bf16"), fallback=lambda: PackedEsm2.from_fair_esm(reference, "fp32")
    )
    sequences = ["MKTA", "MWT", "GG", "WW"]
    (result,) = repaired.run([batch_of(sequences).to_dict()])
    assert result.recomputed == ("s1", "s3")
    assert repaired.get_statistics()["recomputed_in_fp32"] == ["s1", "s3"]
    assert torch.isfinite(result.embeddings).all()
    for row in (1, 3):
        expected = fair_esm_mean(reference, sequences[row])
        torch.testing.assert_close(result.embeddings[row], expected, rtol=1e-4, atol=1e-5)


def test_a_vector_that_is_not_finite_in_fp32_either_ends_the_run() -> None:
    reference = small_esm2()
    hopeless = runner(
        Overflowing.from_fair_esm(reference, "bf16"), fallback=lambda: Overflowing.from_fair_esm(reference, "fp32")
    )
    with pytest.raises(DataError, match="sequence s0 is not finite even in fp32"):
        list(hopeless.run([batch_of(["MW"]).to_dict()]))


def test_without_a_fallback_the_sequences_are_named() -> None:
    with pytest.raises(DataError, match=r"1 sequences \(s1\) are not finite"):
        list(runner(Overflowing.from_fair_esm(small_esm2(), "fp32")).run([batch_of(["MK", "MW"]).to_dict()]))


def test_statistics_count_what_went_through() -> None:
    calls: list[tuple[int, int]] = []
    counted = runner()
    list(counted.run(dicts(3), lambda index, sequences: calls.append((index, sequences))))
    statistics = counted.get_statistics()
    assert calls == [(0, 5), (1, 5), (2, 5)]
    assert statistics["total_batches"] == 3
    assert statistics["total_sequences"] == 15
    assert statistics["total_tokens"] == sum(batch.tokens for batch in batches(3))
    assert statistics["throughput"]["sequences_per_second"] > 0
    assert {"gpu_stats", "dataloader_stats"} <= set(statistics)


def test_one_batch_can_be_processed_alone() -> None:
    single = runner()
    result = single.process_batch(dicts(1)[0])
    assert result.embeddings.shape == (5, 32)
    with pytest.raises(ValueError, match="sequence_ids"):
        single.process_batch({"input_ids": torch.zeros(3, dtype=torch.long)})


def test_the_log_has_a_line_for_each_batch(tmp_path: Path) -> None:
    log = tmp_path / "batches.log"
    list(runner(log_file=log).run(dicts(2)))
    assert [line.split(":")[0] for line in log.read_text().splitlines()] == ["batch 0", "batch 1"]


def test_a_layer_outside_the_model_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="layer 9 does not exist"):
        runner(layers=[9])


def test_the_convenience_function_returns_every_result() -> None:
    assert len(run_async_inference(small_esm2(), dicts(2), "cpu")) == 2
