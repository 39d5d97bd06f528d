"""EMBED_SHARD: one shard of FASTA through loader, engine and writer, with metrics beside it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from virnucpro.config import EmbedConfig, VectorConfig, precision_on
from virnucpro.data import SequenceDataset, VarlenCollator, create_async_dataloader, create_in_process_dataloader
from virnucpro.data.lost_workers import ending_with_loaders
from virnucpro.data.tokens import sequence_keys
from virnucpro.errors import ModelError
from virnucpro.machine import peak_resident_bytes, processor_name
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.proof import WeightsProof
from virnucpro.model.registry import Esm2Config
from virnucpro.model.weights import load_model, open_resident
from virnucpro.monitor import clock
from virnucpro.monitor.gpu import DEFAULT_INTERVAL_SECONDS, DeviceSampler
from virnucpro.monitor.metrics import write_shard_metrics
from virnucpro.monitor.run_verdict import run_verdict
from virnucpro.output.atomic import refuse_full
from virnucpro.output.contracts import ModelDescription, ShardRun, ShardSummary
from virnucpro.output.files import SHARD_SUMMARY_FILE
from virnucpro.output.overlap import Behind
from virnucpro.output.schema import file_metadata
from virnucpro.output.writer import ShardWriter
from virnucpro.pipeline.async_inference import AsyncInferenceRunner, InferenceResult, device_uuid
from virnucpro.pipeline.budget import token_budget
from virnucpro.pipeline.compile_ahead import Prepared
from virnucpro.pipeline.device import select_device
from virnucpro.pipeline.extent import ShardExtent, shard_extent
from virnucpro.pipeline.output_plan import OutputPlan
from virnucpro.pipeline.progress import Progress
from virnucpro.pipeline.self_check import SelfCheck, sample_of_shard, self_checked
from virnucpro.plain_text import visible

#: Results waiting for the writer; more would only hold memory.
WRITER_QUEUE = 8
#: Bytes of results that are not yet written, in pinned memory: two batches of residues.
WRITER_QUEUE_BYTES = 512 << 20
#: What one process prepares in about a second, while the device computes what it was given before.
TOKENS_PREPARED_HERE = 50_000_000
#: Seconds between two samples of the device.
SAMPLE_INTERVAL = DEFAULT_INTERVAL_SECONDS


def embed_shard(config: EmbedConfig) -> ShardSummary:
    """Embed one shard into ``config.outdir``; returns the summary that is also written there.

    Raises:
        VirnucproError: with the exit code for Nextflow; the output directory is then not there.
    """
    refuse_full(config.outdir)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = select_device(config.device, config.precision)
    # From here on, so that start-up's power is recorded too: nothing of this task is on the device yet.
    with DeviceSampler(device_uuid(device), SAMPLE_INTERVAL) as sampler, ending_with_loaders():
        return _embed_on(device, config, sampler)


def tell_verdict(summary: ShardSummary) -> None:
    """Say on stderr where a shard's time went."""
    if summary.sequences:
        print(*map(visible, run_verdict([summary.to_dict()])), sep="\n", file=sys.stderr)


def _embed_on(device: torch.device, config: EmbedConfig, sampler: DeviceSampler) -> ShardSummary:
    described = ModelDescription.read(config.model_json)
    shape = Esm2Config.from_description(described)
    precision = precision_on(device.type, config.precision)
    plan = OutputPlan.of(shape.layers, config)
    prepared = Prepared(shape, precision, device, plan)
    extent = shard_extent(config.shard, config.windows)
    budget = token_budget(shape, precision, device, config.token_budget, config.attempt, plan)
    proof = WeightsProof(config.model)
    # Workers import and tokenise while the weights are read.
    batches = _start_loader(config, budget, _loader_workers(config, extent, device)) if extent.sequences else iter(())

    model, check = _load(config, shape, precision, device, plan, budget, prepared, checked=extent.sequences > 0)
    limit = prepared.matrix_teraflops()
    runner = AsyncInferenceRunner(
        model,
        device,
        plan=plan,
        token_budget=budget,
        fallback=lambda: load_model(config.model, "fp32", device, plain=True),
        sampler=sampler,
    )
    metadata = vector_metadata(config, described, runner, check)
    with ShardWriter(
        config.outdir,
        columns={name: shape.embed_dim for name in plan.columns()},
        dtype=config.embedding_dtype,
        first_unique_index=extent.first,
        sequences=extent.sequences,
        metadata=metadata,
        residue_columns=dict.fromkeys(plan.residue_columns(), shape.embed_dim),
    ) as writer:
        progress = Progress(config.shard.name, extent.sequences, extent.tokens)
        blocked = _write_behind(runner, batches, writer, progress)
        run = _describe_run(config, runner, budget, metadata, extent, blocked, limit, check)

        def write_metrics(folder: Path) -> None:
            proof.check(described.weights_sha256, config.model_json)
            sampler.stop()
            write_shard_metrics(folder, runner.records, sampler.samples(), run, writer.digests)

        writer.finish(write_metrics)
    return ShardSummary.read(config.outdir / SHARD_SUMMARY_FILE)


def _load(
    config: EmbedConfig,
    shape: Esm2Config,
    precision: str,
    device: torch.device,
    plan: OutputPlan,
    budget: int,
    prepared: Prepared,
    *,
    checked: bool,
) -> tuple[PackedEsm2, SelfCheck]:
    """The model to run, and what its self-check found, if the configuration has one and it is to be ``checked``."""
    checked = checked and config.self_check
    # On the device only until this returns.
    source = open_resident(config.model, device) if checked else config.model

    def load(plain: bool) -> PackedEsm2:
        model = load_model(source, precision, device, plain=plain)
        if model.config.embed_dim != shape.embed_dim or model.config.layers != shape.layers:
            raise ModelError(f"{config.model} is not the model that {config.model_json} describes; inspect it again")
        prepared.compiled()
        return model

    if not checked:
        return load(False), SelfCheck()
    return self_checked(load, source, plan, sample_of_shard(config.shard), budget, device_name(device))


def vector_metadata(
    config: VectorConfig, described: ModelDescription, runner: AsyncInferenceRunner, check: SelfCheck
) -> dict[str, Any]:
    """What vectors say of their origin, by ``output.schema.file_metadata``."""
    return file_metadata(
        model=described.name,
        model_revision=described.revision,
        weights_sha256=described.weights_sha256,
        precision=runner.model.precision,
        attention=runner.model.attention_backend,
        layers=list(runner.plan.layers),
        pooling=list(runner.plan.pooling),
        max_length=config.max_length,
        long_sequences=config.long_sequences,
        window_overlap=config.windows and config.windows.overlap,
        torch=torch.__version__,
        cuda=torch.version.cuda if runner.device.type == "cuda" else None,
        device_name=device_name(runner.device),
        greatest_residue_l2=check.greatest_residue_l2,
        least_pooled_cosine=check.least_pooled_cosine,
    )


def _loader_workers(config: EmbedConfig, extent: ShardExtent, device: torch.device) -> int:
    """Processes that prepare batches; none where they would not make up for the seconds that they take to start."""
    if config.workers is not None:
        return config.workers
    if device.type == "cpu" or extent.tokens <= TOKENS_PREPARED_HERE:
        return 0
    return max(torch.get_num_threads() // 2, 1)


def _start_loader(config: EmbedConfig, budget: int, workers: int) -> Iterator[dict[str, Any]]:
    dataset, collate = SequenceDataset([config.shard], max_length=None), VarlenCollator(None, budget, config.windows)
    if not workers:
        return iter(create_in_process_dataloader(dataset, collate))
    return iter(create_async_dataloader(dataset, collate, num_workers=workers, prefetch_factor=config.prefetch))


def _write_behind(
    runner: AsyncInferenceRunner, batches: Iterator[dict[str, Any]], writer: ShardWriter, progress: Progress
) -> float:
    """Run the batches and write their vectors on a thread of their own; returns the seconds waited for that thread."""
    blocked = 0.0
    try:
        write = partial(_write_result, writer)
        with Behind[InferenceResult](write, WRITER_QUEUE, WRITER_QUEUE_BYTES, _result_bytes) as behind:
            for result in runner.run(batches):
                asked = time.perf_counter()
                behind.put(result)
                blocked += time.perf_counter() - asked
                progress.advance(result.record.sequences, result.record.tokens)
    finally:
        progress.close()
    return blocked


def _result_bytes(result: InferenceResult) -> int:
    held = [*result.columns.values(), *(states for each in result.residues for states in each.values())]
    return sum(tensor.nbytes for tensor in held)


def _write_result(writer: ShardWriter, result: InferenceResult) -> None:
    indices = np.array(result.sequence_ids, dtype=np.int64)
    assert result.batch is not None
    keys = sequence_keys(result.batch.input_ids.numpy(), result.batch.cu_seqlens.numpy())
    columns = {name: vectors.numpy() for name, vectors in result.columns.items()}
    writer.write(indices, columns, result.record.batch, keys)
    if result.residues:
        writer.write_residues(
            indices, [{name: states.numpy() for name, states in each.items()} for each in result.residues]
        )


def _describe_run(
    config: EmbedConfig,
    runner: AsyncInferenceRunner,
    budget: int,
    metadata: dict[str, Any],
    extent: ShardExtent,
    writer_wait: float,
    matrix_limit: float | None,
    check: SelfCheck,
) -> ShardRun:
    statistics = runner.get_statistics()
    device = runner.device
    on_gpu = device.type == "cuda"
    return ShardRun(
        shard=extent.shard,
        first_unique_index=extent.first,
        sequences=extent.sequences,
        tokens=statistics["total_tokens"],
        flops=statistics["total_flops"],
        token_budget=budget,
        attempt=config.attempt,
        process_start=_process_start(),
        first_batch_end=runner.first_batch_at,
        inference_seconds=statistics["elapsed_seconds"],
        device_uuid=device_uuid(device),
        device_name=device_name(device),
        peak_memory_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else peak_resident_bytes(),
        recomputed_in_fp32=statistics["recomputed_in_fp32"],
        metadata=metadata,
        writer_wait_seconds=writer_wait,
        matrix_teraflops_per_second=matrix_limit,
        self_check=check.outcome,
        greatest_residue_l2=check.greatest_residue_l2,
        least_pooled_cosine=check.least_pooled_cosine,
    )


def device_name(device: torch.device) -> str:
    """What a device's maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name()


def _process_start() -> float:
    return min(float(psutil.Process().create_time()), clock.now())
