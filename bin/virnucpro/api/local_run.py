"""A whole run on this machine without Nextflow: the pipeline's steps in its order, with its retries and results."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from virnucpro.api.config import RunConfig
from virnucpro.api.kernels_beside import compiling_beside
from virnucpro.api.models import find_model
from virnucpro.api.provenance import facts_of_run
from virnucpro.api.work_folder import RESULTS, clear_published, publish, work_folder
from virnucpro.config import Config, EmbedConfig, SplitConfig, precision_on
from virnucpro.cuda_start import start_cuda, visible_gpus
from virnucpro.errors import DataError, ExitCode, UsageError, VirnucproError, run_reporting_errors, writing_into
from virnucpro.fasta_source import FastaSource
from virnucpro.interrupts import starting_out_of_reach
from virnucpro.machine import usable_cores
from virnucpro.merge.config import MergeConfig
from virnucpro.merge.merge import merge
from virnucpro.model.kept_descriptions import describe_once
from virnucpro.neighbours.config import NeighboursConfig
from virnucpro.output.atomic import refuse_full, remove_tree
from virnucpro.output.contracts import RunSummary, SplitSummary
from virnucpro.output.files import MANIFEST_FILE, REJECTED_FILE, SHARDS_DIR, SPLIT_SUMMARY_FILE
from virnucpro.path_lists import with_files
from virnucpro.process import end_process, importing, refuse_pandas
from virnucpro.report.multiqc import require_multiqc
from virnucpro.report.report import report
from virnucpro.shards import shard_name
from virnucpro.split.genes import require_pyrodigal
from virnucpro.split.split import split

Told = TypeVar("Told", bound=Config)

#: As ``conf/base.config`` has them: how often a shard is tried, and the cores of a task with and without a GPU.
TRIES: Final = 4
CORES: Final = {"cuda": 4, "cpu": 8}
#: Between two looks at whether the run was interrupted.
_POLL_SECONDS: Final = 0.2


def run(config: RunConfig) -> RunSummary:
    """Write ``config.outdir`` as the pipeline does, but for what Nextflow says of itself; returns the run's summary.

    Shards that a run finished before it was interrupted are kept beside ``config.outdir``, and the same run goes on
    from there.

    Raises:
        UsageError: ``config.outdir`` holds something, or another run is at work on it.
        VirnucproError: input, model or a shard; where a shard's own process failed, it has said why.
    """
    if config.report:
        require_multiqc()
    clear_published(config.outdir)
    refuse_full(config.outdir)
    gpus = _gpus(config)
    with compiling_beside(config, gpus):
        return _run(config, gpus)


def _run(config: RunConfig, gpus: Sequence[str]) -> RunSummary:
    device = "cuda" if gpus else "cpu"
    record = facts_of_run(config)
    config = replace(with_files(config), precision=precision_on(device, config.precision))
    _check_inputs(config)
    model = find_model(config.model, config.model_cache, config.model_revision)
    described = describe_once(model)
    with work_folder(config, device, described.weights_sha256) as work:
        model_json, results = work / "model.json", work / RESULTS
        described.write(model_json)
        parts = {"model_json": model_json, "split_summary": work / SPLIT_SUMMARY_FILE}
        if not parts["split_summary"].exists():
            split(_told(SplitConfig, config, model_json=model_json, outdir=work, shards_at_least=max(len(gpus), 1)))
        shards = [shard.shard for shard in SplitSummary.read(parts["split_summary"]).shards]
        waiting = [shard for shard in shards if not (work / shard_name(shard)).exists()]
        _embed_shards([_shard_task(config, work, model, shard, gpus) for shard in waiting], gpus)
        inputs = {"manifest": work / MANIFEST_FILE, "rejected": work / REJECTED_FILE, "outdir": results}
        folders = tuple(work / shard_name(shard) for shard in shards)
        remove_tree(results)
        try:
            summary = merge(_told(MergeConfig, config, shard_dirs=folders, **parts, **inputs, **record))
        except DataError as error:
            if len(waiting) == len(shards):
                raise
            raise DataError(f"{error}; shards of an earlier try were kept: to begin anew, remove {work}") from error
        if config.neighbours is not None:
            from virnucpro.neighbours.neighbours import neighbours

            neighbours(NeighboursConfig(results, config.neighbours, results, config.reference, device=device))
        if config.report:
            report(results, results / "report", config.reference)
        publish(work, config.outdir)
    return summary


def _check_inputs(config: RunConfig) -> None:
    """Say before a model is fetched what the split could not read.

    Raises:
        InputMissingError: a file is not there or cannot be opened.
        UsageError: pyrodigal-gv is not installed, and genes are to be predicted.
    """
    for path in config.inputs:
        FastaSource(path).head()
    if config.translate == "genes":
        require_pyrodigal()


def _gpus(config: RunConfig) -> list[str]:
    """Names of the GPUs to use, as CUDA_VISIBLE_DEVICES takes them; none for the CPU.

    Raises:
        UsageError: fewer are there than were asked for, or this PyTorch cannot use them.
    """
    if config.gpus == 0:
        return []
    present = visible_gpus()
    if not present and config.gpus is None:
        from virnucpro.pipeline.device import select_device

        select_device("auto", config.precision)
    if present < (config.gpus or 0):
        raise UsageError(f"--gpus is {config.gpus}, but {present} are visible; ask for fewer, or 0 for the CPU")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(present)]
    return names[: present if config.gpus is None else config.gpus]


def _told(kind: type[Told], config: RunConfig, **others: Any) -> Told:
    """What a step is told: what the run was told under the same names, and what it knows itself."""
    names = [each.name for each in fields(kind) if hasattr(config, each.name)]  # type: ignore[arg-type]  # a dataclass
    return kind(**{**{name: getattr(config, name) for name in names}, **others})


def _shard_task(config: RunConfig, work: Path, model: Path, shard: int, gpus: Sequence[str]) -> EmbedConfig:
    device = "cuda" if gpus else "cpu"
    return _told(
        EmbedConfig,
        config,
        shard=work / SHARDS_DIR / f"{shard_name(shard)}.fasta",
        model=model,
        model_json=work / "model.json",
        outdir=work / shard_name(shard),
        device=device,
        threads=min(CORES[device], usable_cores()),
    )


def _embed_shards(tasks: Sequence[EmbedConfig], gpus: Sequence[str]) -> None:
    """Embed shards, each in a process of its own, as many at once as there are GPUs.

    Where one fails, those at work come to their end; an interrupt ends them at once.
    """
    free: SimpleQueue[str] = SimpleQueue()
    for gpu in gpus or ("",):
        free.put(gpu)
    interrupted = threading.Event()

    def embed_one(task: EmbedConfig) -> None:
        gpu = free.get()
        try:
            # Ctrl-C is for the main thread, and neither for this one nor for its process.
            with starting_out_of_reach():
                _embed_with_retries(task, gpu, interrupted)
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(max(len(gpus), 1)) as pool:
        try:
            futures = [pool.submit(embed_one, task) for task in tasks]
            try:
                for future in futures:
                    future.result()
            except Exception:
                pool.shutdown(cancel_futures=True)
                raise
        except KeyboardInterrupt:
            interrupted.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _embed_with_retries(task: EmbedConfig, gpu: str, interrupted: threading.Event) -> None:
    for attempt in range(1, TRIES + 1):
        process = multiprocessing.get_context("spawn").Process(
            target=_embed_here, args=(replace(task, attempt=attempt), gpu)
        )
        process.start()
        while process.exitcode is None:
            process.join(_POLL_SECONDS)
            if interrupted.is_set():
                process.kill()
        code = process.exitcode
        if code == ExitCode.OK or interrupted.is_set():
            return
        lost = code < 0
        if not lost and code not in (ExitCode.IO_ERROR, ExitCode.TRY_AGAIN):
            break
        if attempt < TRIES:
            print(f"{task.outdir.name}: ended with {code}, is tried again", file=sys.stderr)
    why = f"{task.outdir.name} could not be embedded (exit code {code}); its own message stands above"
    error = VirnucproError(f"{why}; the same command goes on from the shards that are finished")
    error.exit_code = ExitCode.TRY_AGAIN if lost else code
    raise error


def _embed_here(task: EmbedConfig, gpu: str) -> None:
    """A process of its own: one GPU, one shard."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    refuse_pandas()
    start_cuda(task.device)
    with importing():
        from virnucpro.pipeline.embed import embed_shard

    def embed() -> None:
        with writing_into(task.outdir):
            embed_shard(task)

    end_process(run_reporting_errors(task.outdir.name, embed))


def _end_with_the_run() -> None:
    """A run that was killed leaves no process behind, which would write where the next one does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(ExitCode.TRY_AGAIN)
