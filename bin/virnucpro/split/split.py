"""SPLIT_FASTA: protein FASTA to shards of equal cost, and the ledger that has one row for every record."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from virnucpro import unfinished
from virnucpro.config import TRAINED_RESIDUES, SplitConfig, absolute_layers
from virnucpro.errors import DataError
from virnucpro.fasta_source import FastaSource
from virnucpro.output.atomic import make_directory, sync
from virnucpro.output.contracts import ModelDescription, PlannedShard, ReuseEntry, SplitSummary, VectorFacts
from virnucpro.output.digests import file_digests
from virnucpro.output.files import MANIFEST_FILE, REJECTED_FILE, SHARDS_DIR, SPLIT_SUMMARY_FILE
from virnucpro.output.inputs import InputFile, describe_inputs
from virnucpro.output.schema import IDENTITY_KEYS
from virnucpro.plain_text import visible
from virnucpro.shards import (
    cost_units,
    floating_point_operations,
    shard_count,
    shard_name,
    shard_starts,
)
from virnucpro.split.card_rates import find_card, shards_by_time, teraflops
from virnucpro.split.dedup import DedupTotals, KnownKeys, deduplicate
from virnucpro.split.scan import BLOCK_BYTES, ScanTotals, scan
from virnucpro.split.spool import Spool
from virnucpro.split.workers import Workers
from virnucpro.split.write_ledger import write_ledger
from virnucpro.split.write_shards import WINDOW_BYTES, ShardTask, ShardTotals, write_shard
from virnucpro.windows import computed_tokens, trained_limit, window_counts

_TEMPORARY: Final = ".split.partial"


def split(config: SplitConfig) -> SplitSummary:
    """Write shards, ledger, rejected records and summary into ``config.outdir``; return the summary.

    The summary is renamed into place last: where it stands, everything else does.

    Raises:
        VirnucproError: the input, the model description or earlier results cannot be used, or another program is
            splitting into the folder; nothing is left behind.
        OSError: reading or writing failed; nothing is left behind.
    """
    model = ModelDescription.read(config.model_json)
    vectors = _vectors(config, model)
    config.outdir.mkdir(parents=True, exist_ok=True)
    work = make_directory(config.outdir / _TEMPORARY, config.outdir)
    try:
        summary = _split_into(work, config, model, vectors)
        _publish(work, config.outdir)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        unfinished.end(work)
    print(_in_words(summary, config))
    return summary


def _split_into(work: Path, config: SplitConfig, model: ModelDescription, vectors: VectorFacts) -> SplitSummary:
    spool_directory, shards_directory = work / "spool", work / SHARDS_DIR
    spool_directory.mkdir()
    shards_directory.mkdir()
    files = config.names or tuple(FastaSource(path).name for path in config.inputs)
    limits = config.residue_limit, trained_limit(config.max_length, config.long_sequences)
    spool = Spool(spool_directory, *limits, files, config.samples, config.translate is not None)
    with Workers(2 * BLOCK_BYTES, config.cpus) as workers:
        with (work / REJECTED_FILE).open("w", encoding="utf-8", newline="\n") as rejected:
            scanned = scan(config, spool, rejected, workers)
        _check_not_empty(spool, scanned)
        known, reuse = _open_reuse(config, model, vectors, spool)
        deduplicated = deduplicate(spool, workers, enabled=config.deduplicate, known=known)
        starts = _plan(config, model, vectors, spool, deduplicated)
        tasks = _shard_tasks(starts, deduplicated.embedded, shards_directory)

        def write(task: ShardTask) -> Future[ShardTotals]:
            section = spool.section(task.first_unique, task.sequences)
            room = WINDOW_BYTES // workers.processes
            return workers.submit(write_shard, section, task, model.embed_dim, room, config.windows)

        # A shard for each process comes first, so that the most memory does not depend on who is done with what when.
        written = [write(task) for task in tasks[: workers.processes]]
        ledger = workers.submit(write_ledger, spool, starts, work / MANIFEST_FILE)
        inputs = workers.submit(describe_inputs, config.inputs, files)
        written += [write(task) for task in tasks[workers.processes :]]
        shards = [
            _describe_shard(shard, task, result.result(), model, vectors)
            for shard, (task, result) in enumerate(zip(tasks, written, strict=True))
        ]
        if ledger.result() != spool.records:
            raise AssertionError("the ledger lacks records")
        described = inputs.result()
    scanned.check_unchanged()
    digests = file_digests([work / MANIFEST_FILE, work / REJECTED_FILE])
    summary = _summary(config, model, vectors, spool, scanned, deduplicated, shards, reuse, digests, described)
    summary.write(work / SPLIT_SUMMARY_FILE)
    shutil.rmtree(spool_directory)
    return summary


def _vectors(config: SplitConfig, model: ModelDescription) -> VectorFacts:
    return VectorFacts(
        layers=list(absolute_layers(config.layers, model.layers)),
        pooling=list(config.pooling),
        precision=config.precision,
        embedding_dtype=config.embedding_dtype,
        per_residue=config.per_residue,
    )


def _check_not_empty(spool: Spool, scanned: ScanTotals) -> None:
    if not spool.records:
        names = ", ".join(spool.files[:3]) + (f" and {len(spool.files) - 3} more" if len(spool.files) > 3 else "")
        remedy = "give protein sequences in FASTA format, or DNA with --translate genes or --translate six_frame"
        raise DataError(f"{names}: no sequence in the input; {remedy}")
    if scanned.rejected == spool.records:
        reasons = "; ".join(scanned.first_rejected)
        more = " and so on" if spool.records > len(scanned.first_rejected) else ""
        count = "the only record is" if spool.records == 1 else f"all {spool.records} records are"
        raise DataError(f"{count} rejected, so there is nothing to embed: {reasons}{more}; correct the sequences")
    for told in scanned.empty_files:
        print(visible(f"warning: {told}"), file=sys.stderr)


def _open_reuse(
    config: SplitConfig, model: ModelDescription, vectors: VectorFacts, spool: Spool
) -> tuple[KnownKeys | None, list[ReuseEntry]]:
    """Return the keys of all results that fit, and one entry for each asked for: its name, and why it is not used."""
    if not config.reuse:
        return None, []
    # Here, as a split that reuses nothing would start a sixth later for it.
    from virnucpro.split.reuse import EarlierResults, ReuseIndex, mismatch

    windows = config.windows
    limits = {
        "max_length": config.max_length,
        "long_sequences": config.long_sequences,
        "window_overlap": windows and windows.overlap,
    }
    known = vectors.to_dict() | limits | {"weights_sha256": model.weights_sha256}
    expected = {key: known[key] for key in IDENTITY_KEYS}
    entries: list[ReuseEntry] = []
    names = config.reuse_names or tuple(map(str, config.reuse))
    earlier = [EarlierResults(folder, name) for folder, name in zip(config.reuse, names, strict=True)]
    for results in earlier:
        reason = mismatch(results, expected, vectors, model.embed_dim)
        if reason is not None:
            told = f"warning: {results.name}: not reused, its sequences are embedded anew: {reason}"
            print(visible(told), file=sys.stderr)
        entries.append(ReuseEntry(results=results.name, used=reason is None, reason=reason))
    usable = {i: earlier[i] for i, entry in enumerate(entries) if entry.used}
    if not usable:
        return None, entries
    return ReuseIndex(spool.path("reuse"), usable, spool.records), entries


def _plan(
    config: SplitConfig, model: ModelDescription, vectors: VectorFacts, spool: Spool, deduplicated: DedupTotals
) -> npt.NDArray[np.int64]:
    def costs() -> Any:
        return (
            cost_units(
                computed_tokens(lengths, config.windows), model.embed_dim, window_counts(lengths, config.windows)
            )
            for lengths in spool.embedded_lengths(0, deduplicated.embedded)
        )

    total = sum(int(chunk.sum()) for chunk in costs())
    if config.shard_residues is None:
        rate = teraflops(find_card(config.card), model.embed_dim, config.precision)
        operations = floating_point_operations(total, vectors.layers, model.embed_dim)
        wanted = shards_by_time(operations, deduplicated.residues, rate)
    else:
        wanted = -(-deduplicated.residues // config.shard_residues)
    shards = shard_count(deduplicated.embedded, wanted, config.shards_at_least)
    return shard_starts(costs(), deduplicated.embedded, total, shards)


def _shard_tasks(starts: npt.NDArray[np.int64], sequences: int, directory: Path) -> list[ShardTask]:
    sizes = np.diff(np.append(starts, sequences)).tolist()
    return [
        ShardTask(directory / f"{shard_name(shard)}.fasta", first, size)
        for shard, (first, size) in enumerate(zip(starts.tolist(), sizes, strict=True))
    ]


def _describe_shard(
    shard: int, task: ShardTask, written: ShardTotals, model: ModelDescription, vectors: VectorFacts
) -> PlannedShard:
    return PlannedShard(
        shard=shard,
        file=task.path.name,
        first_unique_index=task.first_unique,
        sequences=task.sequences,
        residues=written.residues,
        tokens=written.tokens,
        cost=floating_point_operations(written.cost_units, vectors.layers, model.embed_dim),
    )


def _summary(
    config: SplitConfig,
    model: ModelDescription,
    vectors: VectorFacts,
    spool: Spool,
    scanned: ScanTotals,
    deduplicated: DedupTotals,
    shards: list[PlannedShard],
    reuse: list[ReuseEntry],
    digests: dict[str, str],
    inputs: list[InputFile],
) -> SplitSummary:
    card = find_card(config.card)
    accepted = spool.records - scanned.rejected
    saved = deduplicated.duplicate + deduplicated.reused
    return SplitSummary(
        records=spool.records,
        residues=scanned.residues,
        embedded=deduplicated.embedded,
        duplicate=deduplicated.duplicate,
        reused=deduplicated.reused,
        rejected=scanned.rejected,
        truncated=scanned.truncated,
        beyond_trained_length=scanned.beyond_trained_length,
        unknown_residues=scanned.unknown_residues,
        gaps_removed=scanned.gaps_removed,
        comment_lines=scanned.comment_lines,
        stopped_frames=scanned.stopped_frames,
        share_saved=saved / accepted if accepted else 0.0,
        max_length=config.max_length,
        long_sequences=config.long_sequences,
        window_overlap=config.windows and config.windows.overlap,
        keys_digest=f"{deduplicated.key_sum:032x}",
        digests=digests,
        inputs=inputs,
        output=vectors,
        shards=shards,
        reuse=reuse,
        card=card,
        card_teraflops=teraflops(card, model.embed_dim, config.precision),
    )


def _publish(work: Path, outdir: Path) -> None:
    """Move the finished parts to their names, from the disk where they are whole.

    The summary of an earlier split goes first, the new one comes last.
    """
    for path in (*(work / SHARDS_DIR).iterdir(), work / SHARDS_DIR, *filter(Path.is_file, work.iterdir())):
        sync(path)
    (outdir / SPLIT_SUMMARY_FILE).unlink(missing_ok=True)
    if (outdir / SHARDS_DIR).exists():
        (outdir / SHARDS_DIR).rename(work / "replaced")
    for name in (SHARDS_DIR, MANIFEST_FILE, REJECTED_FILE, SPLIT_SUMMARY_FILE):
        (work / name).rename(outdir / name)
    sync(outdir)


def _in_words(summary: SplitSummary, config: SplitConfig) -> str:
    """Return what the user reads: counts, what deduplication saved, and last what was rejected."""
    what = "distinct sequences" if config.deduplicate else "sequences"
    lines = [
        f"{summary.records} records, {summary.residues} residues",
        f"{summary.embedded} {what} to embed in {len(summary.shards)} shards",
        f"{summary.duplicate} duplicates and {summary.reused} reused: {summary.share_saved:.1%} saved",
    ]
    if summary.truncated:
        lines.append(f"{summary.truncated} cut to {summary.max_length} residues")
    if summary.beyond_trained_length:
        told = f"beyond the {TRAINED_RESIDUES} residues that models are trained on"
        lines.append(f"{summary.beyond_trained_length} {told}")
    if summary.unknown_residues:
        letters = "J, inner *, gaps" if config.gaps == "unknown" else "J, inner *"
        lines.append(f"{summary.unknown_residues} letters without a token ({letters}) read as X")
    if summary.gaps_removed:
        lines.append(f"{summary.gaps_removed} gap characters (-, inner .) removed")
    if summary.comment_lines:
        lines.append(f"{summary.comment_lines} comment lines skipped")
    if summary.stopped_frames:
        lines.append(f"{summary.stopped_frames} frames with a stop left out")
    rejected = summary.rejected
    lines.append(f"{rejected} records rejected" + (f": see {REJECTED_FILE}" if rejected else ""))
    return "\n".join(lines)
