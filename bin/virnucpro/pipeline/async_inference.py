"""The runner: batches from a prefetching loader through the engine, always one batch ahead of the device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from virnucpro.config import precision_on
from virnucpro.data.packed_batch import PackedBatch
from virnucpro.errors import DataError, UsageError
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.monitor import clock
from virnucpro.monitor.gpu import DeviceSampler, Sample, device_statistics
from virnucpro.monitor.metrics import BatchRecord, LoaderMetrics, bottleneck
from virnucpro.pipeline.engine import BatchOutput, Engine, InFlight
from virnucpro.pipeline.output_plan import OutputPlan
from virnucpro.shards import SPECIAL_TOKENS, cost_units, floating_point_operations
from virnucpro.windows import computed_tokens, window_counts

#: Batches queued on the device beyond the one whose results are awaited.
BATCHES_AHEAD = 2


@dataclass(frozen=True)
class InferenceResult:
    """The embeddings of one batch.

    Attributes:
        sequence_ids: ids in the order of the rows.
        embeddings: (S, D) fp32 on the CPU, the first of ``columns``.
        batch_idx: position of the batch in its loader's order, from 0; 0 for a batch processed alone.
        columns: every vector asked for, by column name.
        residues: (n, D) fp16 by column for each sequence; empty where not asked for.
        record: timing and packing of the batch, which it numbers over all that the runner finished.
        recomputed: ids whose vectors were not finite in the working precision and were computed again in fp32.
        batch: what was computed, as it was on the host.
    """

    sequence_ids: list[str]
    embeddings: torch.Tensor
    batch_idx: int
    columns: dict[str, torch.Tensor]
    residues: list[dict[str, torch.Tensor]]
    record: BatchRecord
    recomputed: tuple[str, ...] = ()
    batch: PackedBatch | None = None


class AsyncInferenceRunner:
    """Runs an ESM-2 model over the batches of a loader while the next ones are prepared.

    Args:
        model: a :class:`PackedEsm2`, or a loaded fair-esm ``ESM2``, which is repacked.
        device: where to compute.
        enable_streams: copy in, compute and copy out on three CUDA streams; off gives the same numbers, slower.
        monitor_interval: seconds between two samples of the device, or 0 for none.
        log_file: where to append one line per batch, or None.
        precision: what a fair-esm model is repacked in, ``fp16`` on CUDA and ``fp32`` on the CPU unless given. A
            packed model has its own.
        plan: what to keep of each sequence, the mean of the last layer unless given.
        token_budget: what packing efficiency is measured against.
        fallback: gives the same model in fp32 on the same device; called at most once, on the first vector that is
            not finite. Without it such a vector is an error.
        sampler: samples the device already, and is stopped by whoever started it; ``monitor_interval`` is then unused.

    Raises:
        UsageError: a device or precision that there is not, or another precision than a packed model's.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device | str,
        enable_streams: bool = True,
        monitor_interval: float = 1.0,
        log_file: Path | None = None,
        *,
        precision: str | None = None,
        plan: OutputPlan | None = None,
        token_budget: int | None = None,
        fallback: Callable[[], PackedEsm2] | None = None,
        sampler: DeviceSampler | None = None,
    ) -> None:
        self.device = torch.device(device)
        if self.device.type not in ("cuda", "cpu", "mps"):
            raise UsageError(f"device '{device}' is not supported; choose cuda, cpu or mps")
        if isinstance(model, PackedEsm2):
            if precision not in (None, model.precision):
                raise UsageError(f"precision '{precision}' asked of a model packed in {model.precision}; pack it anew")
            self.model = model
            self._fallback = fallback
        else:
            chosen = precision or precision_on(self.device.type)
            self.model = PackedEsm2.from_fair_esm(model, chosen, self.device)
            self._fallback = fallback or (lambda: PackedEsm2.from_fair_esm(model, "fp32", self.device))
        self.plan = plan or OutputPlan.of(self.model.config.layers)
        self.engine = Engine(self.model, self.device, self.plan, streams=enable_streams)
        self.loader_metrics = LoaderMetrics()
        self._samples_itself = sampler is None and monitor_interval > 0
        self.sampler = DeviceSampler(device_uuid(self.device), monitor_interval) if self._samples_itself else sampler
        self._log_file = log_file
        self._token_budget = token_budget
        self._fp32_engine: Engine | None = None
        self.recomputed: list[str] = []
        self.records: list[BatchRecord] = []
        self.first_batch_at: float | None = None
        self._elapsed = self._counted_until = 0.0
        self._cost_units = 0

    def run(
        self,
        dataloader: Iterable[Mapping[str, Any]],
        progress_callback: Callable[[int, int], None] | None = None,
    ) -> Iterator[InferenceResult]:
        """Yield one result per batch, in the loader's order.

        May be called again, and given up half way; the statistics are of all batches that were finished.

        Args:
            dataloader: spec-shaped packed batches, or an iterator already started over them.
            progress_callback: called with (batch_idx, sequences in the batch) after each batch.

        Raises:
            DataError: a vector is not finite even in fp32.
            TryAgainError: a sequence does not fit into GPU memory, or the device was lost.
        """
        if self.sampler is not None and self._samples_itself:
            self.sampler.start()
        begun = time.perf_counter()
        try:
            for result in self._results(iter(dataloader)):
                self._count_time(begun)
                if progress_callback is not None:
                    progress_callback(result.batch_idx, len(result.sequence_ids))
                yield result
        finally:
            if self.sampler is not None and self._samples_itself:
                self.sampler.stop()

    def process_batch(self, batch: Mapping[str, Any]) -> InferenceResult:
        """Run one spec-shaped batch and wait for it; raises ValueError where it is not one."""
        begun = time.perf_counter()
        result = self._finish(self.engine.submit(PackedBatch.from_dict(batch)), 0, None)
        self._count_time(begun)
        return result

    def _count_time(self, since: float) -> None:
        """Add the time from ``since`` until now, but for what was added before."""
        now = time.perf_counter()
        self._elapsed += now - max(since, self._counted_until)
        self._counted_until = now

    def get_statistics(self) -> dict[str, Any]:
        """Totals, throughput per second, and what the device and the loader did, over all batches finished so far.

        ``elapsed_seconds`` are those from the start of each ``run`` to its last result, and of each batch processed
        alone. ``total_flops`` counts every sequence once, however often it had to be computed.
        """
        sequences = sum(record.sequences for record in self.records)
        tokens = sum(record.tokens for record in self.records)
        seconds = self._elapsed or float("nan")
        samples = self.samples()
        loader = self.loader_metrics.statistics(self.records)
        config = self.model.config
        return {
            "total_batches": len(self.records),
            "total_sequences": sequences,
            "total_tokens": tokens,
            "total_flops": floating_point_operations(self._cost_units, self.plan.layers, config.embed_dim),
            "elapsed_seconds": self._elapsed,
            "throughput": {"sequences_per_second": sequences / seconds, "tokens_per_second": tokens / seconds},
            "recomputed_in_fp32": list(self.recomputed),
            "dataloader_stats": loader,
            "gpu_stats": device_statistics(samples),
            "bottleneck": bottleneck(
                [sample.utilization for sample in samples if sample.utilization is not None],
                loader["pct_starved"],
                on_gpu=self.device.type == "cuda",
            ),
        }

    def samples(self) -> list[Sample]:
        """The device's samples so far; empty without a monitor."""
        return [] if self.sampler is None else self.sampler.samples()

    def _results(self, batches: Iterator[Mapping[str, Any]]) -> Iterator[InferenceResult]:
        flights: deque[tuple[InFlight, int, float]] = deque()
        for index in count():
            asked = time.perf_counter()
            raw = next(batches, None)
            waited = time.perf_counter() - asked
            if raw is None:
                break
            flights.append((self.engine.submit(PackedBatch.from_dict(raw)), index, waited))
            if len(flights) > BATCHES_AHEAD:
                yield self._finish(*flights.popleft())
        while flights:
            yield self._finish(*flights.popleft())

    def _finish(self, flight: InFlight, index: int, waited: float | None) -> InferenceResult:
        """Take a batch's results; ``waited`` are the seconds until its loader gave it, None without a loader."""
        output = self.engine.collect(flight)
        recomputed = () if bool(output.finite.all()) else self._recompute(output)
        ended = max(output.ended, clock.now()) if recomputed else output.ended
        state = None
        if waited is not None:
            state = (self.loader_metrics.record_wait if index else self.loader_metrics.record_startup)(waited)
        if self.first_batch_at is None:
            self.first_batch_at = clock.now()
        batch, windows = output.batch, self.plan.windows
        residues = batch.lengths.numpy() - SPECIAL_TOKENS
        computed = computed_tokens(residues, windows)
        tokens = int(computed.sum())
        record = BatchRecord(
            batch=len(self.records),
            start=output.started,
            end=ended,
            wait_milliseconds=1000 * (waited or 0.0),
            queue_state=state,
            sequences=batch.num_sequences,
            tokens=tokens,
            longest=min(batch.max_seqlen, windows.residues + SPECIAL_TOKENS) if windows else batch.max_seqlen,
            packing_efficiency=min(1.0, tokens / self._token_budget) if self._token_budget else None,
            retries=output.retries,
        )
        self.records.append(record)
        self._cost_units += int(
            cost_units(computed, self.model.config.embed_dim, window_counts(residues, windows)).sum()
        )
        self._log(record)
        first = next(iter(output.vectors.values()))
        return InferenceResult(
            list(batch.sequence_ids), first, index, output.vectors, output.residues, record, recomputed, batch
        )

    def _recompute(self, output: BatchOutput) -> tuple[str, ...]:
        """Replace vectors that are not finite by those of the fp32 model."""
        rows = torch.nonzero(~output.finite).flatten()
        ids = tuple(output.batch.sequence_ids[row] for row in rows.tolist())
        if self._fp32_engine is None:
            if self._fallback is None or self.model.precision == "fp32":
                raise DataError(f"the vectors of {_shorten(ids)} are not finite; the checkpoint may be damaged")
            self._fp32_engine = Engine(self._fallback(), self.device, self.plan, streams=False)
        for row in rows.tolist():
            single = output.batch.part(row, row + 1)
            repaired = self._fp32_engine.collect(self._fp32_engine.submit(single))
            if not bool(repaired.finite.all()):
                raise DataError(
                    f"the vector of sequence {single.sequence_ids[0]} is not finite even in fp32; "
                    "the checkpoint may be damaged"
                )
            for name, vector in repaired.vectors.items():
                output.vectors[name][row] = vector[0]
            if output.residues:
                output.residues[row] = repaired.residues[0]
        self.recomputed.extend(ids)
        return ids

    def _log(self, record: BatchRecord) -> None:
        if self._log_file is None:
            return
        with self._log_file.open("a", encoding="utf-8") as log:
            waited = record.queue_state or "no loader"
            log.write(
                f"batch {record.batch}: {record.sequences} sequences, {record.tokens} tokens, "
                f"{record.end - record.start:.3f} s, waited {record.wait_milliseconds:.1f} ms ({waited})\n"
            )


def run_async_inference(
    model: Any,
    dataloader: Iterable[Mapping[str, Any]],
    device: torch.device | str,
    enable_streams: bool = True,
    progress_callback: Callable[[int, int], None] | None = None,
) -> list[InferenceResult]:
    """Run a whole loader and return its results as a list."""
    runner = AsyncInferenceRunner(model, device, enable_streams)
    return list(runner.run(dataloader, progress_callback))


def device_uuid(device: torch.device) -> str | None:
    """NVML's name of a CUDA device, independent of CUDA_VISIBLE_DEVICES; None for others."""
    if device.type != "cuda":
        return None
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def _shorten(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:5])
    return f"{len(ids)} sequences ({shown}{', ...' if len(ids) > 5 else ''})"
