"""Owns what processes say to each other in JSON; docs/output.md documents each field.

To add one: a line here, its value where the record is made, and its line in docs/output.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from virnucpro import __version__
from virnucpro.config import Windows, residue_limit, windows_of
from virnucpro.output.inputs import InputFile
from virnucpro.output.records import ADDED_LATER, Record


@dataclass(frozen=True, kw_only=True)
class ModelDescription(Record, remedy="describe the model again with fetch_model.py", layout={"indent": 2}):
    """``model.json``: what FETCH_MODEL found a checkpoint to be."""

    name: str
    revision: str | None
    source: str
    family: str = field(default="ESM-2", metadata=ADDED_LATER)
    layers: int
    embed_dim: int
    heads: int
    weights_sha256: str
    parameters: int
    left_out: list[str]
    files: list[str]


@dataclass(frozen=True, kw_only=True)
class VectorFacts(Record):
    """Which vectors a run makes; ``layers`` are absolute numbers."""

    layers: list[int]
    pooling: list[str]
    precision: str
    embedding_dtype: str
    per_residue: bool


@dataclass(frozen=True, kw_only=True)
class PlannedShard(Record):
    """One shard of a split: ``sequences`` distinct ones from ``first_unique_index`` on; ``cost`` in operations."""

    shard: int
    file: str
    first_unique_index: int
    sequences: int
    residues: int
    tokens: int
    cost: int


@dataclass(frozen=True, kw_only=True)
class ReuseEntry(Record):
    """Results named by ``--reuse``, and why they were not used if they were not."""

    results: str
    used: bool
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Tally(Record):
    """What became of an input's records, how many are cut or beyond the trained length, and what was changed."""

    pipeline_version: str = __version__
    records: int
    residues: int
    embedded: int
    duplicate: int
    reused: int
    rejected: int
    truncated: int
    beyond_trained_length: int | None = field(default=None, metadata=ADDED_LATER)
    unknown_residues: int
    gaps_removed: int
    comment_lines: int
    stopped_frames: int = field(default=0, metadata=ADDED_LATER)
    keys_digest: str


@dataclass(frozen=True, kw_only=True)
class SplitSummary(Tally, remedy="split the input again with split_fasta.py", layout={"indent": 1}):
    """``split_summary.json``: what SPLIT_FASTA found, and the shards that it made of it.

    ``card`` is what they were sized for, None for one that it does not know; ``card_teraflops`` the rate that it is
    taken to reach.
    """

    share_saved: float
    max_length: int
    long_sequences: str
    window_overlap: int | None
    digests: dict[str, str]
    inputs: list[InputFile] = field(default_factory=list, metadata=ADDED_LATER)
    output: VectorFacts
    shards: list[PlannedShard]
    reuse: list[ReuseEntry]
    card: str | None
    card_teraflops: float

    @property
    def residue_limit(self) -> int | None:
        """Residues after which sequences were cut, or None where they were left whole."""
        return residue_limit(self.max_length, self.long_sequences)

    @property
    def windows(self) -> Windows | None:
        """The windows that long sequences are embedded in, or None where they are not."""
        return windows_of(self.max_length, self.long_sequences, self.window_overlap)


@dataclass(frozen=True, kw_only=True)
class ShardRun(Record):
    """What an EMBED_SHARD task knows of itself.

    ``flops`` are those of the whole shard, ``matrix_teraflops_per_second`` what the device reaches in plain matrix
    products; ``process_start`` and ``first_batch_end`` are unix seconds; ``self_check`` is what its figures came to.
    """

    shard: int
    pipeline_version: str = __version__
    first_unique_index: int = 0
    sequences: int = 0
    tokens: int = 0
    flops: int | None = None
    token_budget: int = 0
    attempt: int = 1
    process_start: float | None = None
    first_batch_end: float | None = None
    inference_seconds: float = 0.0
    device_uuid: str | None = None
    device_name: str = "unknown"
    peak_memory_bytes: int | None = None
    recomputed_in_fp32: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    writer_wait_seconds: float = 0.0
    matrix_teraflops_per_second: float | None = None
    self_check: str = "off"
    greatest_residue_l2: float | None = None
    least_pooled_cosine: float | None = None


@dataclass(frozen=True, kw_only=True)
class ShardSummary(ShardRun, remedy="embed the shard again", layout={"indent": 2, "sort_keys": True}):
    """``summary.json`` of a shard: what its task knew, and what its batches and the device's readings tell."""

    host: str
    started: float | None
    finished: float | None
    wall_seconds: float | None
    startup_seconds: float | None
    starved_seconds: float | None
    compute_seconds: float | None
    write_seconds: float | None
    loader_wait_seconds: float
    energy_joules: float | None
    energy_source: str | None
    startup_energy_joules: float | None
    batch_energy_joules: float | None
    mean_power_watts: float | None
    batches: int
    retries: int
    sequences_per_second: float | None
    tokens_per_second: float | None
    teraflops_per_second: float | None
    matrix_share: float | None
    packing_efficiency: float | None
    avg_wait_time_ms: float | None
    p95_wait_time_ms: float | None
    max_wait_time_ms: float | None
    pct_starved: float | None
    queue_state_distribution: dict[str, int]
    utilization_percent: float | None
    utilization_by_stage: dict[str, float]
    bottleneck: str
    bottleneck_cause: str
    verdict: str
    digests: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RunModel(Record):
    """The model of a run."""

    name: str
    layers: int
    embed_dim: int
    parameters: int
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class RunVersions(Record):
    """Versions of the libraries; of several, all with commas between them."""

    torch: str
    cuda: str | None
    pyarrow: str


@dataclass(frozen=True, kw_only=True)
class RunParameters(Record):
    """What was asked of a run."""

    precision: str
    layers: list[int]
    pooling: list[str]
    max_length: int
    long_sequences: str
    window_overlap: int | None = field(default=None, metadata=ADDED_LATER)
    embedding_dtype: str
    reuse: list[str]


@dataclass(frozen=True, kw_only=True)
class CostEstimate(Record):
    """What a million more sequences would take."""

    device_hours: float | None
    kwh: float | None


@dataclass(frozen=True, kw_only=True)
class RunDevice(Record):
    """A device of a run, and how many shards it computed."""

    name: str
    uuid: str | None
    host: str
    shards: int


@dataclass(frozen=True, kw_only=True)
class ShardFigures(Record):
    """The most important columns of shards.parquet."""

    shard: int
    device_name: str
    sequences: int
    tokens: int
    wall_seconds: float | None
    startup_seconds: float | None
    tokens_per_second: float | None
    teraflops_per_second: float | None
    utilization_percent: float | None
    pct_starved: float | None
    energy_joules: float | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class RunSummary(Tally, remedy="merge again with merge_embeddings.py", layout={"indent": 2}):
    """``run_summary.json``: what a finished run did, and how fast."""

    model: RunModel
    versions: RunVersions
    parameters: RunParameters
    reuse: list[ReuseEntry]
    tokens: int
    rows: int
    shards: int
    started: float | None
    finished: float | None
    elapsed_seconds: float | None
    device_seconds: float
    startup_seconds: float
    starved_seconds: float
    compute_seconds: float
    write_seconds: float
    idle_seconds: float
    sequences_per_second: float | None
    tokens_per_second: float | None
    teraflops_per_second: float | None
    matrix_teraflops_per_second: float | None
    matrix_share: float | None
    avg_wait_time_ms: float | None
    p95_wait_time_ms: float | None
    pct_starved: float | None
    peak_memory_bytes: int | None
    energy_joules: float | None
    energy_kwh: float | None
    startup_energy_joules: float | None
    utilization_percent: float | None
    bottleneck: str
    bottleneck_cause: str
    verdict: list[str]
    million_more: CostEstimate
    self_check: dict[str, int] = field(default_factory=dict, metadata=ADDED_LATER)
    greatest_residue_l2: float | None = field(default=None, metadata=ADDED_LATER)
    least_pooled_cosine: float | None = field(default=None, metadata=ADDED_LATER)
    attention: list[str]
    devices: list[RunDevice]
    per_shard: list[ShardFigures]
    parts: int
