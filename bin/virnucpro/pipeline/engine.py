"""One packed batch through the model: copy in, compute and copy out, each on a CUDA stream of its own.

S sequences, T tokens, D embedding dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from virnucpro.config import DEFAULT_VECTORS, VectorConfig, absolute_layers
from virnucpro.data.packed_batch import PackedBatch
from virnucpro.data.tokens import MASK
from virnucpro.errors import TryAgainError
from virnucpro.kernels.pooling import pool
from virnucpro.output.schema import embedding_columns, residue_columns

if TYPE_CHECKING:
    from virnucpro.model.esm2 import PackedEsm2


@dataclass(frozen=True)
class OutputPlan:
    """Which vectors leave the model: absolute ``layers`` (0 is the embedding layer) times ``pooling``."""

    layers: tuple[int, ...]
    pooling: tuple[str, ...]
    per_residue: bool = False

    @classmethod
    def of(cls, depth: int, asked: VectorConfig = DEFAULT_VECTORS) -> OutputPlan:
        """What is asked of a model of ``depth`` layers; UsageError where it does not have them."""
        return cls(absolute_layers(asked.layers, depth), asked.pooling, asked.per_residue)

    def columns(self) -> dict[str, tuple[str, int]]:
        """Column name to (pooling, layer), in output order."""
        outputs = [(pooling, layer) for pooling in self.pooling for layer in self.layers]
        return dict(zip(embedding_columns(self.pooling, self.layers), outputs, strict=True))

    def residue_columns(self) -> dict[str, int]:
        """Column name to layer of the per-residue vectors; empty where none were asked for."""
        return dict(zip(residue_columns(self.layers), self.layers, strict=True)) if self.per_residue else {}


@dataclass
class BatchOutput:
    """What a batch leaves on the host.

    ``vectors`` are fp32 (S, D) by column; ``residues`` hold fp16 (n, D) by column for each sequence, and are empty
    where none were asked for.
    """

    batch: PackedBatch
    vectors: dict[str, torch.Tensor]
    finite: torch.Tensor
    residues: list[dict[str, torch.Tensor]]
    started: float
    ended: float
    retries: int = 0

    @staticmethod
    def join(batch: PackedBatch, parts: Sequence[BatchOutput], retries: int) -> BatchOutput:
        """Put the outputs of a batch that had to be split together again."""
        return BatchOutput(
            batch,
            {name: torch.cat([part.vectors[name] for part in parts]) for name in parts[0].vectors},
            torch.cat([part.finite for part in parts]),
            [residues for part in parts for residues in part.residues],
            min(part.started for part in parts),
            max(part.ended for part in parts),
            retries,
        )


@dataclass
class InFlight:
    """A batch on its way through the device; ``done`` is recorded once its results are on the host.

    It holds the ``batch``, whose pinned tensors must outlive their asynchronous copies.
    """

    batch: PackedBatch
    vectors: dict[str, torch.Tensor]
    finite: torch.Tensor
    residues: dict[str, torch.Tensor]
    started: torch.cuda.Event | float
    ended: torch.cuda.Event | float
    done: torch.cuda.Event | None
    #: Set instead of the tensors above when the batch did not fit and was run in halves at once.
    joined: BatchOutput | None = None


class Engine:
    """Runs packed batches; ``submit`` returns at once on CUDA, ``collect`` waits for the results.

    With ``streams`` off everything runs in order on the current stream: the numbers are the same.
    """

    def __init__(self, model: PackedEsm2, device: torch.device, plan: OutputPlan, *, streams: bool = True) -> None:
        self.model = model
        self.device = device
        self.plan = plan
        self.streams = streams and device.type == "cuda"
        if device.type == "cuda":
            with torch.cuda.device(device):
                current = torch.cuda.current_stream(device)
                self._copy_in = torch.cuda.Stream(device) if self.streams else current
                self._compute = torch.cuda.Stream(device) if self.streams else current
                self._copy_out = torch.cuda.Stream(device) if self.streams else current
                self._epoch = torch.cuda.Event(enable_timing=True)
                self._epoch.record(self._compute)
                self._epoch.synchronize()
            self._epoch_time = time.time()

    def submit(self, batch: PackedBatch) -> InFlight:
        """Queue a batch. A batch that does not fit into GPU memory is run at once, in halves.

        Raises:
            TryAgainError: a single sequence does not fit, or the device is lost.
        """
        try:
            return self._launch(batch)
        except torch.OutOfMemoryError:
            pass
        except RuntimeError as error:
            if not _is_allocation_failure(error):
                raise _device_error(error) from error
        # The failed launch's tensors are alive until its exception is: split only out here.
        joined = self._run_in_halves(batch)
        return InFlight(batch, {}, joined.finite, {}, 0.0, 0.0, None, joined=joined)

    def collect(self, flight: InFlight) -> BatchOutput:
        """Wait for a batch and hand over its host tensors."""
        if flight.joined is not None:
            return flight.joined
        if flight.done is not None:
            try:
                flight.done.synchronize()
            except RuntimeError as error:
                raise _device_error(error) from error
        residues: list[dict[str, torch.Tensor]] = []
        if flight.residues:
            offsets = flight.batch.cu_seqlens.tolist()
            for begin, end in pairwise(offsets):
                residues.append({name: states[begin + 1 : end - 1] for name, states in flight.residues.items()})
        return BatchOutput(
            flight.batch,
            flight.vectors,
            flight.finite,
            residues,
            self._wall_clock(flight.started),
            self._wall_clock(flight.ended),
        )

    def _wall_clock(self, moment: torch.cuda.Event | float) -> float:
        if isinstance(moment, float):
            return moment
        return float(self._epoch_time + self._epoch.elapsed_time(moment) / 1000)

    def forward(
        self, batch: PackedBatch, masked: bool
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, torch.Tensor]]:
        """Vectors by column, whether each sequence's are finite, and residues; ``batch`` is on the device."""
        states = self.model.forward(
            batch.input_ids, batch.cu_seqlens, batch.positions, batch.max_seqlen, self.plan.layers, masked
        )
        vectors = {
            name: pool(states[layer], batch.cu_seqlens, pooling)
            for name, (pooling, layer) in self.plan.columns().items()
        }
        finite = torch.stack([torch.isfinite(v).all(dim=1) for v in vectors.values()]).all(dim=0)
        residues = {name: states[layer].to(torch.float16) for name, layer in self.plan.residue_columns().items()}
        return vectors, finite, residues

    @torch.no_grad()
    def _launch(self, batch: PackedBatch) -> InFlight:
        # Looked up on the host, where it does not make the device wait.
        masked = bool((batch.input_ids == MASK).any())
        if self.device.type != "cuda":
            started = time.time()
            resident = PackedBatch(
                batch.input_ids.to(self.device), batch.cu_seqlens.to(self.device), batch.max_seqlen, batch.sequence_ids
            )
            vectors, finite, residues = self.forward(resident, masked)
            host, host_residues = ({name: each.cpu() for name, each in found.items()} for found in (vectors, residues))
            return InFlight(batch, host, finite.cpu(), host_residues, started, time.time(), None)
        with torch.cuda.device(self.device):
            return self._launch_on_streams(batch, masked)

    def _launch_on_streams(self, batch: PackedBatch, masked: bool) -> InFlight:
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        done = torch.cuda.Event()
        with torch.cuda.stream(self._copy_in):
            ids = batch.input_ids.to(self.device, non_blocking=True)
            cu_seqlens = batch.cu_seqlens.to(self.device, non_blocking=True)
        self._compute.wait_stream(self._copy_in)
        with torch.cuda.stream(self._compute):
            started.record()
            resident = PackedBatch(ids, cu_seqlens, batch.max_seqlen, batch.sequence_ids)
            vectors, finite, residues = self.forward(resident, masked)
            ended.record()
        # Without this the allocator could hand the memory of the ids to the next batch's copy while they are read.
        ids.record_stream(self._compute)
        cu_seqlens.record_stream(self._compute)
        self._copy_out.wait_event(ended)
        with torch.cuda.stream(self._copy_out):
            host = {name: _to_host(vector, self._copy_out) for name, vector in vectors.items()}
            host_finite = _to_host(finite, self._copy_out)
            host_residues = {name: _to_host(states, self._copy_out) for name, states in residues.items()}
            done.record()
        return InFlight(batch, host, host_finite, host_residues, started, ended, done)

    def _run_in_halves(self, batch: PackedBatch) -> BatchOutput:
        if batch.num_sequences == 1:
            raise TryAgainError(
                f"sequence {batch.sequence_ids[0]} of {batch.tokens - 2:,} residues does not fit into the memory of "
                f"{self.device}; lower --max_length, or use a GPU with more memory"
            )
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
        outputs = [self.collect(self.submit(half)) for half in batch.split()]
        return BatchOutput.join(batch, outputs, 1 + sum(output.retries for output in outputs))


def _to_host(tensor: torch.Tensor, stream: torch.cuda.Stream) -> torch.Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    tensor.record_stream(stream)
    return host


def _is_allocation_failure(error: RuntimeError) -> bool:
    text = str(error)
    return "out of memory" in text or "CUBLAS_STATUS_ALLOC_FAILED" in text


def _device_error(error: RuntimeError) -> Exception:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "CUDA" in text or "NVML" in text or "cuda" in text:
        return TryAgainError(f"the GPU failed: {text}; the task can be tried again, on another device if this recurs")
    return error
