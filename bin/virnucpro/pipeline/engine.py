"""One packed batch through the model: copy in, compute and copy out, each on a CUDA stream of its own.

S sequences, T tokens, D embedding dimensions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import torch

from virnucpro.data.packed_batch import PackedBatch
from virnucpro.data.tokens import MASK
from virnucpro.data.window_layout import WindowLayout, lay_out
from virnucpro.device_errors import device_fault, is_out_of_device_memory
from virnucpro.errors import TryAgainError
from virnucpro.kernels.pooling import pool, pool_ref
from virnucpro.monitor import clock
from virnucpro.pipeline.output_plan import OutputPlan
from virnucpro.shards import SPECIAL_TOKENS
from virnucpro.windows import computed_tokens

if TYPE_CHECKING:
    from virnucpro.model.esm2 import PackedEsm2

#: Of residues copied to the host at once: what pinned memory is made of whole, in powers of two.
RESIDUE_BLOCK_BYTES: Final = 32 << 20


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
    residues: dict[str, list[torch.Tensor]]
    started: torch.cuda.Event | float
    ended: torch.cuda.Event | float
    done: torch.cuda.Event | None
    #: Set instead of the tensors above when the batch did not fit and was run in halves at once.
    joined: BatchOutput | None = None
    #: The same when it was split before, as one of its size had not fitted.
    parts: tuple[InFlight, ...] = ()


class Engine:
    """Runs packed batches; ``submit`` returns at once on CUDA, ``collect`` waits for the results.

    With ``streams`` off everything runs in order on the current stream: the numbers are the same. A batch that did not
    fit into the device's memory teaches the engine: later ones of more tokens than its halves are split before.
    """

    def __init__(self, model: PackedEsm2, device: torch.device, plan: OutputPlan, *, streams: bool = True) -> None:
        self.model = model
        self.device = device
        self.plan = plan
        self.streams = streams and device.type == "cuda"
        self._most_tokens: int | None = None
        if device.type == "cuda":
            with torch.cuda.device(device):
                current = torch.cuda.current_stream(device)
                self._copy_in = torch.cuda.Stream(device) if self.streams else current
                self._compute = torch.cuda.Stream(device) if self.streams else current
                self._copy_out = torch.cuda.Stream(device) if self.streams else current
                self._epoch = torch.cuda.Event(enable_timing=True)
                self._epoch.record(self._compute)
                self._epoch.synchronize()
            self._epoch_time = clock.now()

    def submit(self, batch: PackedBatch) -> InFlight:
        """Queue a batch. One that does not fit into GPU memory is run at once, in halves.

        Raises:
            TryAgainError: a single sequence does not fit, or the device is lost.
        """
        if self._most_tokens is not None and self.tokens(batch) > self._most_tokens and batch.num_sequences > 1:
            parts = tuple(self.submit(half) for half in batch.split())
            return InFlight(batch, {}, parts[0].finite, {}, 0.0, 0.0, None, parts=parts)
        try:
            return self._launch(batch)
        except torch.OutOfMemoryError:
            pass
        except RuntimeError as error:
            if not is_out_of_device_memory(error):
                raise _told(error) from error
        # The failed launch's tensors are alive until its exception is: split only out here.
        joined = self._run_in_halves(batch)
        return InFlight(batch, {}, joined.finite, {}, 0.0, 0.0, None, joined=joined)

    def collect(self, flight: InFlight) -> BatchOutput:
        """Wait for a batch and hand over its host tensors."""
        if flight.joined is not None:
            return flight.joined
        if flight.parts:
            outputs = [self.collect(part) for part in flight.parts]
            return BatchOutput.join(flight.batch, outputs, sum(output.retries for output in outputs))
        if flight.done is not None:
            try:
                flight.done.synchronize()
            except RuntimeError as error:
                raise _told(error) from error
        residues = [
            dict(zip(flight.residues, each, strict=True)) for each in zip(*flight.residues.values(), strict=True)
        ]
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

    def tokens(self, batch: PackedBatch) -> int:
        """Tokens that are computed for a batch on the host."""
        return int(computed_tokens(batch.lengths.numpy() - SPECIAL_TOKENS, self.plan.windows).sum())

    def forward(
        self, batch: PackedBatch, masked: bool, laid: WindowLayout | None = None
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, torch.Tensor]]:
        """Vectors by column, whether each sequence's are finite, and residues; all of it is on the device.

        ``laid`` is what to compute in the batch's place, if anything.
        """
        seen = batch if laid is None else laid.batch
        states = self.model.forward(
            seen.input_ids, seen.cu_seqlens, seen.positions, seen.max_seqlen, self.plan.layers, masked
        )
        if laid is not None:
            states = {layer: laid.fold(states.pop(layer)) for layer in tuple(states)}
        vectors = pooled(self.model, states, batch.cu_seqlens, self.plan)
        finite = torch.stack([torch.isfinite(v).all(dim=1) for v in vectors.values()]).all(dim=0)
        residues = {name: states[layer].to(torch.float16) for name, layer in self.plan.residue_columns().items()}
        return vectors, finite, residues

    @torch.no_grad()
    def _launch(self, batch: PackedBatch) -> InFlight:
        # Looked up on the host, where it does not make the device wait.
        masked = bool((batch.input_ids == MASK).any())
        laid = lay_out(batch, self.plan.windows)
        if self.device.type != "cuda":
            started = clock.now()
            resident = PackedBatch(
                batch.input_ids.to(self.device), batch.cu_seqlens.to(self.device), batch.max_seqlen, batch.sequence_ids
            )
            vectors, finite, residues = self.forward(resident, masked, laid and laid.to(self.device))
            host = {name: vector.cpu() for name, vector in vectors.items()}
            offsets = batch.cu_seqlens.tolist()
            host_residues = {name: _by_sequence(states, offsets, torch.Tensor.cpu) for name, states in residues.items()}
            return InFlight(batch, host, finite.cpu(), host_residues, started, clock.now(), None)
        with torch.cuda.device(self.device):
            return self._launch_on_streams(batch, masked, laid)

    def _launch_on_streams(self, batch: PackedBatch, masked: bool, laid: WindowLayout | None) -> InFlight:
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        offsets = batch.cu_seqlens.tolist()
        done = torch.cuda.Event()
        with torch.cuda.stream(self._copy_in):
            ids = batch.input_ids.to(self.device, non_blocking=True)
            cu_seqlens = batch.cu_seqlens.to(self.device, non_blocking=True)
            laid = laid and laid.to(self.device)
        self._compute.wait_stream(self._copy_in)
        with torch.cuda.stream(self._compute):
            started.record()
            resident = PackedBatch(ids, cu_seqlens, batch.max_seqlen, batch.sequence_ids)
            vectors, finite, residues = self.forward(resident, masked, laid)
            ended.record()
        # Without this the allocator could hand the memory of the ids to the next batch's copy while they are read.
        ids.record_stream(self._compute)
        cu_seqlens.record_stream(self._compute)
        if laid is not None:
            laid.record_stream(self._compute)
        self._copy_out.wait_event(ended)
        with torch.cuda.stream(self._copy_out):
            host = {name: _to_host(vector, self._copy_out) for name, vector in vectors.items()}
            host_finite = _to_host(finite, self._copy_out)
            to_host = partial(_to_host, stream=self._copy_out)
            host_residues = {name: _by_sequence(states, offsets, to_host) for name, states in residues.items()}
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
        halves = batch.split()
        self._most_tokens = max(map(self.tokens, halves))
        outputs = [self.collect(self.submit(half)) for half in halves]
        return BatchOutput.join(batch, outputs, 1 + sum(output.retries for output in outputs))


def pooled(
    model: PackedEsm2, states: Mapping[int, torch.Tensor], cu_seqlens: torch.Tensor, plan: OutputPlan
) -> dict[str, torch.Tensor]:
    """Vectors (S, D) by column out of the states (T, D) of the plan's layers."""
    with model.operations():
        return {name: pool(states[layer], cu_seqlens, pooling) for name, (pooling, layer) in plan.columns().items()}


def pooled_plainly(
    states: Mapping[int, torch.Tensor], cu_seqlens: torch.Tensor, plan: OutputPlan
) -> dict[str, torch.Tensor]:
    """The same by PyTorch's own operations, whatever else is at hand."""
    return {name: pool_ref(states[layer], cu_seqlens, pooling) for name, (pooling, layer) in plan.columns().items()}


def _by_sequence(
    states: torch.Tensor, offsets: Sequence[int], to_host: Callable[[torch.Tensor], torch.Tensor]
) -> list[torch.Tensor]:
    """Copy states (T, D) to the host, in blocks whose memory is free when all their sequences are written.

    Returns:
        (n, D) for each sequence, without cls and eos.
    """
    rows_at_once = RESIDUE_BLOCK_BYTES // (states.shape[1] * states.element_size())
    found: list[torch.Tensor] = []
    first = 0
    while first < len(offsets) - 1:
        last = max(bisect_right(offsets, offsets[first] + rows_at_once) - 1, first + 1)
        block, start = to_host(states[offsets[first] : offsets[last]]), offsets[first]
        found += [block[begin + 1 - start : end - 1 - start] for begin, end in pairwise(offsets[first : last + 1])]
        first = last
    return found


def _to_host(tensor: torch.Tensor, stream: torch.cuda.Stream) -> torch.Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    tensor.record_stream(stream)
    return host


def _told(error: RuntimeError) -> Exception:
    fault = device_fault(error)
    return error if fault is None else TryAgainError(fault)
