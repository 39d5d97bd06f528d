"""Sequences in, an Arrow table of vectors out, by the pipeline's own engine, rules and metadata.

S distinct sequences, D embedding dimensions.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack, get_type_hints

import numpy as np
import pyarrow as pa
import torch
import xxhash
from tqdm.auto import tqdm

from virnucpro.api.columns import in_order
from virnucpro.api.contigs import ContigReader
from virnucpro.api.forked import refuse_forked
from virnucpro.api.models import find_model
from virnucpro.api.options import EmbedderOptions as EmbedderOptions
from virnucpro.api.options import OtherOptions, as_typed
from virnucpro.api.sequences import Sequences, in_words, read_sequences
from virnucpro.config import DEFAULT_MODEL, DEVICES, MOST_AT_ONCE, SequenceConfig, option, precision_on
from virnucpro.data import VarlenCollator
from virnucpro.errors import DataError
from virnucpro.fasta import Record, Rejected
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.kept_descriptions import describe_once
from virnucpro.model.registry import Esm2Config
from virnucpro.model.weights import Checkpoint, load_model, open_resident
from virnucpro.output.contracts import ModelDescription
from virnucpro.output.schema import CONTIG_FIELDS, LEDGER_FACTS, LEDGER_SCHEMA, encode_metadata
from virnucpro.pipeline.async_inference import AsyncInferenceRunner, InferenceResult
from virnucpro.pipeline.budget import token_budget
from virnucpro.pipeline.compile_ahead import compile_ahead
from virnucpro.pipeline.device import select_device
from virnucpro.pipeline.embed import device_name, vector_metadata
from virnucpro.pipeline.output_plan import OutputPlan
from virnucpro.pipeline.self_check import SelfCheck, sample_of, self_checked
from virnucpro.windows import computed_tokens, trained_limit

#: Seconds of work before a progress bar is worth showing.
_BAR_AFTER = 1.0


@dataclass
class _Loaded:
    """A model on its device, and what it is made of: until its self-check, its weights where they are resident."""

    path: Path
    source: Path | Checkpoint
    described: ModelDescription
    model: PackedEsm2
    device: torch.device
    plan: OutputPlan
    budget: int
    check: SelfCheck | None = None


@dataclass(frozen=True, eq=False)
class Embedder(SequenceConfig):
    """Embeds proteins with a model that stays loaded from the first call, or the start of a ``with`` block, on.

    Vectors are those of the pipeline for the same sequences, options and device. For use by one thread at a time.

    Args:
        model: official name, repository ORG/NAME of the Hugging Face hub, or path of a checkpoint.
        model_revision: branch, tag or commit of the repository.
        model_cache: where downloaded models are kept; the pipeline's own folder unless given.
        device: ``auto`` takes a GPU where there is one, else the CPU.
        token_budget: tokens per batch; measured unless given.
        threads: CPU threads of this process; as torch has them unless given.
        strict: raise DataError where a record would be rejected.
        deduplicate: compute identical sequences once.
        progress: show a bar where the work takes longer than a second.
        self_check: with the first call's sequences, measure the parity of what is loaded before anything is computed.
        gaps: ``-`` and inner ``.`` are removed (``remove``), read as X (``unknown``), or ``reject`` the record.
        alphabet: ``auto`` refuses nucleotides, ``protein`` takes what looks like them.
        translate, chunk, genetic_code, min_contig: what is given are contigs, of which the proteins are embedded;
            these, and max_length, long_sequences, window_overlap, layers, pooling, per_residue, precision and
            embedding_dtype, as the parameters of the pipeline, see docs/usage.md.

    Attributes:
        rejected: records of the last call that have no row, each with its reason.
        changed: records of the last call that were not read as they stand, each with its ``unknown_residues`` (letters
            read as X) and ``gaps_removed``.
        stopped_frames: frames of the last call that ``translate="six_frame"`` left out for a stop.

    Raises:
        UsageError: an option that makes no sense.
    """

    model: str | Path = DEFAULT_MODEL
    model_revision: str | None = None
    model_cache: Path | None = None
    device: str = option("where to compute", "auto", choices=DEVICES)
    token_budget: int | None = None
    threads: int | None = option("CPU threads", None, most=MOST_AT_ONCE)
    strict: bool = False
    deduplicate: bool = True
    progress: bool = True
    self_check: bool = True
    rejected: list[Rejected] = field(default_factory=list, init=False, repr=False)
    changed: list[Record] = field(default_factory=list, init=False, repr=False)
    stopped_frames: int = field(default=0, init=False, repr=False, metadata={"least": 0})

    if TYPE_CHECKING:

        def __init__(self, model: str | Path = DEFAULT_MODEL, **options: Unpack[OtherOptions]) -> None: ...

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in (each.name for each in fields(self) if each.init):
            object.__setattr__(self, name, as_typed(name, getattr(self, name), hints[name]))
        super().__post_init__()

    def embed(self, sequences: Sequences) -> pa.Table:
        """Embed a list of sequences, a mapping of ids to sequences, or a FASTA file, plain or compressed.

        Returns:
            A row for each record that is not rejected, in input order: ``ordinal`` (its place in the input), ``id``,
            ``length``, ``truncated``, ``beyond_trained_length``, ``sequence_key``, and the vectors, (D,) each, under
            the names that they have in the pipeline's results: ``embedding`` where there is one layer and pooling. The
            schema's metadata are those of results. Of contigs also, before the vectors, ``CONTIG_FIELDS`` of
            ``virnucpro.output.schema``: where each protein lies.

        Warns:
            UserWarning: some records are rejected: symbols that are no residues, or none left.

        Raises:
            VirnucproError: sequences or model cannot be used; the message says what to do.
        """
        records = self._accepted(sequences)
        limit, trained = self.residue_limit, trained_limit(self.max_length, self.long_sequences)
        keys = [xxhash.xxh3_128_hexdigest(record.sequence[:limit].encode()) for record in records]
        first: dict[str | int, int] = {}
        places = [first.setdefault(key if self.deduplicate else row, len(first)) for row, key in enumerate(keys)]
        distinct = [""] * len(first)
        for record, place in zip(records, places, strict=True):
            distinct[place] = record.sequence[:limit]
        vectors = self._vectors(distinct)
        if len(distinct) < len(records):
            vectors = vectors.take(pa.array(places))
        facts = {
            "ordinal": [record.ordinal for record in records],
            "id": [record.id for record in records],
            "length": [len(record.sequence) for record in records],
            "truncated": [limit is not None and len(record.sequence) > limit for record in records],
            "beyond_trained_length": [trained is not None and len(record.sequence) > trained for record in records],
            "sequence_key": keys,
        }
        fields = [LEDGER_SCHEMA.field(name).with_nullable(False) for name in LEDGER_FACTS]
        if self.translate is not None:
            fields += CONTIG_FIELDS
            facts |= {each.name: [getattr(record, each.name) for record in records] for each in CONTIG_FIELDS}
        columns = [pa.array(facts[each.name], each.type) for each in fields]
        schema = pa.schema([*fields, *vectors.schema], metadata=vectors.schema.metadata)
        return pa.Table.from_arrays([*columns, *vectors.columns], schema=schema)

    def close(self) -> None:
        """Let go of the model; a further call loads it again."""
        if self.__dict__.pop("_loaded", None) is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        self._loaded  # noqa: B018  # loads the model now
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _loaded(self) -> _Loaded:
        refuse_forked()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = select_device(self.device, self.precision)
        path = find_model(str(self.model), self.model_cache, self.model_revision)
        described = describe_once(path)
        precision, shape = precision_on(device.type, self.precision), Esm2Config.from_description(described)
        plan = OutputPlan.of(shape.layers, self)
        budget = token_budget(shape, precision, device, self.token_budget, 1, plan)
        source = open_resident(path, device) if self.self_check else path
        model = load_model(source, precision, device)
        compile_ahead(shape, precision, device, plan)
        return _Loaded(path, source, described, model, device, plan, budget)

    def _check(self, loaded: _Loaded, sequences: Sequence[str]) -> SelfCheck:
        """What is found of the loaded model's parity, once; the path that it is to go by is loaded."""

        def load(plain: bool) -> PackedEsm2:
            if loaded.model.plain != plain:
                precision = loaded.model.precision
                del loaded.model
                loaded.model = load_model(loaded.source, precision, loaded.device, plain=plain)
            return loaded.model

        if self.self_check and loaded.check is None:
            budget, name = loaded.budget, device_name(loaded.device)
            try:
                _, loaded.check = self_checked(load, loaded.source, loaded.plan, sample_of(sequences), budget, name)
            except BaseException:
                self.close()
                raise
            loaded.source = loaded.path
        return loaded.check or SelfCheck()

    def _accepted(self, sequences: Sequences) -> list[Record]:
        """The records to embed; those to reject are kept, and told of."""
        self.rejected.clear()
        self.changed.clear()
        records: list[Record] = []
        contigs = None if self.translate is None else ContigReader(self)
        read: Iterator[Record | Rejected] = (
            read_sequences(sequences, gaps=self.gaps, alphabet=self.alphabet)
            if contigs is None
            else contigs.read(sequences)
        )
        for record in read:
            if isinstance(record, Record):
                records.append(record)
                if record.unknown_residues or record.gaps_removed:
                    self.changed.append(record)
            else:
                self.rejected.append(record)
        object.__setattr__(self, "stopped_frames", 0 if contigs is None else contigs.stopped_frames)
        if not records and not self.rejected:
            raise DataError(f"no sequence in the input; give {'protein' if contigs is None else 'DNA'} sequences")
        if self.rejected:
            count = f"{len(self.rejected)} of {len(records) + len(self.rejected)} records rejected"
            message = f"{count}: {in_words(self.rejected)}"
            if self.strict or not records:
                raise DataError(f"{message}; correct the sequences")
            warnings.warn(f"{message}; they have no row", stacklevel=3)
        return records

    def _vectors(self, sequences: Sequence[str]) -> pa.Table:
        """Columns of vectors, a row for each sequence in the order given."""
        # In the order of a shard: batches, and with them the last bits of vectors, are those of the pipeline.
        order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
        refuse_forked()
        loaded = self._loaded
        check = self._check(loaded, [sequences[row] for row in order])
        runner = AsyncInferenceRunner(
            loaded.model,
            loaded.device,
            monitor_interval=0,
            plan=loaded.plan,
            fallback=lambda: load_model(loaded.path, "fp32", loaded.device, plain=True),
        )
        items = ({"id": str(row), "sequence": sequences[row]} for row in order)
        batches = VarlenCollator(None, loaded.budget, self.windows).pack(items)
        tokens = computed_tokens(np.array(list(map(len, sequences)), np.int64), self.windows)
        results = self._with_progress(runner.run(batches), int(tokens.sum()))
        columns = in_order(results, runner, len(sequences), self.embedding_dtype)
        metadata = vector_metadata(self, loaded.described, runner, check)
        fields = [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
        schema = pa.schema(fields, metadata=encode_metadata(metadata))
        return pa.Table.from_arrays(list(columns.values()), schema=schema)

    def _with_progress(self, results: Iterator[InferenceResult], tokens: int) -> Iterator[InferenceResult]:
        options: dict[str, Any] = {"unit": " tokens", "unit_scale": True, "delay": _BAR_AFTER, "leave": False}
        with tqdm(total=tokens, disable=not self.progress, **options) as bar:
            for result in results:
                yield result
                bar.update(result.record.tokens)


def embed(sequences: Sequences, **options: Unpack[EmbedderOptions]) -> pa.Table:
    """Embed a list of sequences, a mapping of ids to sequences, or a FASTA file, with a model loaded for this call.

    Where there are several calls, ``Embedder`` keeps the model loaded between them; it explains options, table and
    errors.
    """
    embedder = Embedder(**options)
    try:
        return embedder.embed(sequences)
    finally:
        embedder.close()
