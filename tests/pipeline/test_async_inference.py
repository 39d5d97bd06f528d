"""The runner: order, conservation, repair of vectors that are not finite, statistics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline.models import batch_of, fair_esm_mean, random_sequences, small_esm2

from virnucpro.config import VectorConfig
from virnucpro.data.packed_batch import PackedBatch
from virnucpro.errors import DataError, UsageError
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.pipeline import AsyncInferenceRunner, async_inference
from virnucpro.pipeline.async_inference import BATCHES_AHEAD, run_async_inference
from virnucpro.pipeline.output_plan import OutputPlan

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


@pytest.mark.faults("a vector that is not finite in 16 bits", "the runner", "computed again in fp32, and named")
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


@pytest.mark.faults("a vector that is not finite in fp32 either", "the runner", "65, with the sequence")
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


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(async_inference.time, "perf_counter", lambda: self.now)

    def loader(self, batches: list[dict[str, Any]], seconds: float) -> Iterator[dict[str, Any]]:
        for batch in batches:
            self.now += seconds
            yield batch


def test_statistics_are_over_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    twice = runner(token_budget=1000)
    first = list(twice.run(clock.loader(dicts(3), 2.0)))
    clock.now += 1000
    second = list(twice.run(clock.loader(dicts(2), 0.5)))
    statistics = twice.get_statistics()
    assert statistics["total_batches"] == 5
    assert statistics["total_sequences"] == 25
    assert statistics["elapsed_seconds"] == pytest.approx(3 * 2.0 + 2 * 0.5)
    assert statistics["throughput"]["sequences_per_second"] == pytest.approx(25 / 7)
    loader = statistics["dataloader_stats"]
    assert loader["startup_wait_time_ms"] == pytest.approx(2500)
    assert loader["max_wait_time_ms"] == pytest.approx(2000)
    assert sum(loader["queue_state_distribution"].values()) == 5 - 2
    assert [result.batch_idx for result in (*first, *second)] == [0, 1, 2, 0, 1]
    assert [record.batch for record in twice.records] == list(range(5))
    lengths = [n for group in (*batches(3), *batches(2)) for n in group.lengths.tolist()]
    assert statistics["total_flops"] == sum(24 * 2 * 32**2 * n + 4 * 2 * 32 * n**2 for n in lengths)


def test_a_run_that_is_given_up_counts_what_it_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    abandoned = runner()
    results = abandoned.run(clock.loader(dicts(9), 1.0))
    next(results)
    clock.now += 500
    results.close()
    statistics = abandoned.get_statistics()
    assert statistics["total_batches"] == statistics["dataloader_stats"]["total_batches"] == 1
    assert statistics["elapsed_seconds"] == pytest.approx(BATCHES_AHEAD + 1)
    assert sum(statistics["dataloader_stats"]["queue_state_distribution"].values()) == 0
    list(abandoned.run(clock.loader(dicts(2), 3.0)))
    statistics = abandoned.get_statistics()
    assert statistics["total_batches"] == 3
    assert statistics["elapsed_seconds"] == pytest.approx(BATCHES_AHEAD + 1 + 6)


def test_a_run_that_fails_counts_what_it_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    reference = small_esm2()
    broken = runner(Overflowing.from_fair_esm(reference, "fp32"))
    groups = [batch_of(["MKT", "GAV"]).to_dict()] * 4 + [batch_of(["MWT"]).to_dict()]
    given = []
    with pytest.raises(DataError, match="not finite"):
        given.extend(broken.run(clock.loader(groups, 1.0)))
    statistics = broken.get_statistics()
    assert statistics["total_batches"] == 4
    assert statistics["total_sequences"] == 8
    assert statistics["elapsed_seconds"] == pytest.approx(5)


def test_batches_processed_alone_count_their_own_time_and_no_wait() -> None:
    single = runner()
    for group in dicts(3):
        single.process_batch(group)
    statistics = single.get_statistics()
    assert statistics["total_batches"] == 3
    assert 0 < statistics["elapsed_seconds"] < float("inf")
    assert statistics["throughput"]["sequences_per_second"] == pytest.approx(15 / statistics["elapsed_seconds"])
    assert statistics["dataloader_stats"]["pct_starved"] is None
    assert sum(statistics["dataloader_stats"]["queue_state_distribution"].values()) == 0


def test_what_is_computed_again_belongs_to_its_batch() -> None:
    reference = small_esm2()

    def slow_fallback() -> PackedEsm2:
        time.sleep(0.2)
        return PackedEsm2.from_fair_esm(reference, "fp32")

    repaired = runner(Overflowing.from_fair_esm(reference, "bf16"), fallback=slow_fallback)
    (result,) = repaired.run([batch_of(["MKTA", "MWT"]).to_dict()])
    assert result.record.end - result.record.start >= 0.2
    n = [6, 5]
    assert repaired.get_statistics()["total_flops"] == sum(24 * 2 * 32**2 * m + 4 * 2 * 32 * m**2 for m in n)


def test_a_sequence_beyond_the_budget_fills_its_batch_and_no_more() -> None:
    packed = runner(token_budget=20)
    list(packed.run([batch_of(["A" * 98]).to_dict(), batch_of(["A" * 8]).to_dict()]))
    assert [record.packing_efficiency for record in packed.records] == [1.0, 0.5]
    assert packed.get_statistics()["dataloader_stats"]["packing_efficiency"] == 0.75


@pytest.mark.parametrize("layers", [(1,), (0, 1), (-2,)])
def test_operations_are_those_of_the_layers_computed(layers: tuple[int, ...]) -> None:
    shallow = runner(small_esm2(layers=3), plan=OutputPlan.of(3, VectorConfig(layers=layers)))
    list(shallow.run(dicts(2)))
    lengths = [n for group in batches(2) for n in group.lengths.tolist()]
    computed = 2 if layers == (-2,) else 1
    expected = sum(24 * computed * 32**2 * n + 4 * computed * 32 * n**2 for n in lengths)
    assert shallow.get_statistics()["total_flops"] == expected


def test_a_precision_or_device_that_would_not_be_heeded_is_refused() -> None:
    packed = PackedEsm2.from_fair_esm(small_esm2(), "fp32")
    assert runner(packed, precision="fp32").model is packed
    with pytest.raises(UsageError, match="precision 'bf16' asked of a model packed in fp32"):
        runner(packed, precision="bf16")
    with pytest.raises(UsageError, match="precision 'fp64' is not available"):
        runner(precision="fp64")
    with pytest.raises(UsageError, match="device 'meta' is not supported; choose cuda, cpu or mps"):
        AsyncInferenceRunner(packed, "meta", monitor_interval=0)


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


def test_the_convenience_function_returns_every_result() -> None:
    assert len(run_async_inference(small_esm2(), dicts(2), "cpu")) == 2
