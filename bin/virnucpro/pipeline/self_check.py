"""Every task measures its own parity, before anything that it computes is written.

A few sequences of the shard go through the model, packed, and through its plain twin in fp32. What is measured is what
docs/parity.md publishes: the greatest residue L2 and the least pooled cosine. Beyond the published bounds the task goes
on by the plain path: PyTorch's own operations, none of our kernels.

T tokens, n tokens of one sequence, D embedding dimensions.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch.nn.functional import cosine_similarity

from virnucpro.data.packed_batch import PackedBatch
from virnucpro.data.tokens import tokenise_packed
from virnucpro.errors import TryAgainError
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.registry import Esm2Config
from virnucpro.model.twin import twin_states
from virnucpro.model.weights import Checkpoint
from virnucpro.parity_bounds import PARITY_BOUNDS, ROUNDING_BOUNDS, ParityBound
from virnucpro.pipeline.engine import pooled, pooled_plainly
from virnucpro.pipeline.output_plan import OutputPlan
from virnucpro.shards import SPECIAL_TOKENS

#: Floating-point operations that the twin may take, in fp32: about a second of two cores; a GPU's by its paper rate.
TWIN_OPERATIONS: Final = {"cpu": 1e10, "cuda": 1e13, "mps": 1e12}
#: The same of the largest batch that is checked, in which the sequences stand several times, as many as in a real one.
BATCH_OPERATIONS: Final = {"cpu": 0.0, "cuda": 2e13, "mps": 0.0}
#: Tokens of the sequences together, and of that batch, at most.
MOST_TOKENS: Final = 4096
MOST_BATCH_TOKENS: Final = 16_384
#: Tokens of each sequence at least, whatever the model costs.
FEWEST_TOKENS: Final = 16
#: What the pooling's kernels may differ by from PyTorch's pooling of the same states: the order of fp32 sums.
POOLING_L2: Final = 1e-5
#: Times as far from fp32 as PyTorch's operations in the same precision that right kernels may be.
FARTHER: Final = 1.5

#: Gives the model, by the fast path or the plain one.
Load = Callable[[bool], PackedEsm2]


@dataclass(frozen=True)
class SelfCheck:
    """What a task found of its own parity.

    Attributes:
        outcome: ``off``; ``met``, the published bounds; ``missed``, them, by no more than rounding explains; ``plain``
            where the plain path alone meets them; ``unmeasured`` where no vector is finite in the working precision.
        greatest_residue_l2: |ours - twin| / |twin| of the worst residue, of what is published.
        least_pooled_cosine: between the mean-pooled vectors of the worst sequence.
    """

    outcome: str = "off"
    greatest_residue_l2: float | None = None
    least_pooled_cosine: float | None = None


@dataclass(frozen=True)
class _Deviation:
    residue_l2: float
    pooled_cosine: float
    pooling_l2: float

    def within(self, bound: ParityBound) -> bool:
        """Whether all keep their bounds; what is no number keeps none."""
        near = bound.residue_l2 is None or self.residue_l2 <= bound.residue_l2
        return near and self.pooled_cosine >= bound.pooled_cosine and self.pooling_l2 <= POOLING_L2

    def no_farther(self, plain: _Deviation) -> bool:
        """Whether what PyTorch's own operations are off by explains this."""
        near = self.residue_l2 <= FARTHER * plain.residue_l2
        return (
            near and 1 - self.pooled_cosine <= FARTHER**2 * (1 - plain.pooled_cosine) and self.pooling_l2 <= POOLING_L2
        )

    def told(self, outcome: str) -> SelfCheck:
        return SelfCheck(outcome, self.residue_l2, self.pooled_cosine)


def sample_of_shard(shard: Path) -> list[str]:
    """The longest, the middle and the shortest sequence of a shard, which lie in this order; fewer where it has few.

    The middle one is that in which the middle of the file lies.
    """
    with shard.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as text:
        middle, last = (text.rfind(b"\n>", 0, end) + 1 for end in (len(text) // 2, len(text)))
        found = []
        for start in sorted({0, middle, last}):
            first = text.find(b"\n", start) + 1
            end = text.find(b"\n", first)
            found.append(text[first : end if end >= 0 else len(text)].decode("ascii", errors="replace"))
    return found


def sample_of(sequences: Sequence[str]) -> list[str]:
    """The same of sequences in memory, from long to short."""
    half, counted = sum(map(len, sequences)) / 2, 0
    for middle, sequence in enumerate(sequences):  # noqa: B007  # the last one is meant
        counted += len(sequence)
        if counted >= half:
            break
    return [sequences[place] for place in sorted({0, middle, len(sequences) - 1})]


def self_checked(
    load: Load, source: Path | Checkpoint, plan: OutputPlan, sample: Sequence[str], budget: int, device_name: str
) -> tuple[PackedEsm2, SelfCheck]:
    """The model to go on with, and what was found.

    Args:
        load: called with whether the plain path is asked for: gives the model. Nothing here holds one when another is
            asked for.
        source: its checkpoint, or where it lies.
        plan: what is kept of each sequence.
        sample: sequences, from long to short; long ones are cut to what the check may cost.
        budget: tokens per batch.
        device_name: for messages.

    Raises:
        TryAgainError: the plain path is beyond what rounding explains.
    """
    model = load(False)
    precision, device = model.precision, model.device
    window = None if plan.windows is None else plan.windows.residues
    texts = cut_to([sequence[:window] for sequence in sample], model.config, device.type)
    reference = _reference(source, texts, device)
    batches = _batches(texts, model.config, device.type, budget)
    bound = PARITY_BOUNDS[precision]
    fast = _measure(model, plan, batches, reference)
    if fast is None:
        return _rid(model), SelfCheck("unmeasured")
    if fast.within(bound) or (precision == "fp8" and fast.within(ROUNDING_BOUNDS[precision])):
        return _rid(model), fast.told("met" if fast.within(bound) else "missed")
    where = f"self-check on {device_name}: "
    advice = "" if precision == "fp32" else "; --precision fp32 rounds less"
    plain: _Deviation | None = fast
    if with_kernels := model.has_kernels:
        del model
        model = load(True)
        plain = _measure(model, plan, batches, reference)
    if plain is None or not plain.within(ROUNDING_BOUNDS[precision]):
        shown = "no vector is finite" if plain is None else _in_words(plain, precision)
        raise TryAgainError(
            f"{where}without kernels of its own too, {shown}, so that nothing was written; another device may compute "
            f"rightly, and --self_check false computes unchecked{advice}"
        )
    if plain.within(bound) or not fast.no_farther(plain):
        print(
            f"{where}{_in_words(fast, precision)}; this task goes on without kernels of its own, by PyTorch's "
            "operations alone",
            file=sys.stderr,
        )
        return _rid(model), plain.told("plain" if plain.within(bound) else "missed")
    print(
        f"{where}{_in_words(fast, precision)}, and so are PyTorch's own operations ({plain.residue_l2:.1e}): it is "
        f"this model's rounding{advice}",
        file=sys.stderr,
    )
    if with_kernels:
        del model
        model = load(False)
    return _rid(model), fast.told("missed")


def cut_to(sample: Sequence[str], config: Esm2Config, device_type: str) -> list[str]:
    """The sample, short ones first, within what the twin may compute: what these leave goes to the longer."""
    per_token = 24 * config.layers * config.embed_dim**2
    left = min(MOST_TOKENS, int(TWIN_OPERATIONS[device_type] / per_token))
    kept: list[str] = []
    for waiting, sequence in zip(range(len(sample), 0, -1), sorted(sample, key=len), strict=True):
        share = max(left // waiting, FEWEST_TOKENS)
        kept.append(sequence[: share - SPECIAL_TOKENS])
        left -= len(kept[-1]) + SPECIAL_TOKENS
    return kept


def _reference(source: Path | Checkpoint, texts: Sequence[str], device: torch.device) -> list[torch.Tensor]:
    """The twin's states of each sequence (n, D), where they are compared; computed on the CPU where the device has no
    memory left."""
    ids = [torch.from_numpy(tokenise_packed([text])[0]) for text in texts]
    try:
        states = [each.to(_place(device)) for each in twin_states(source, ids, device)]
    except torch.OutOfMemoryError:
        states = [each.to(_place(device)) for each in twin_states(source, ids, torch.device("cpu"))]
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return states


def _place(device: torch.device) -> torch.device:
    """Where states are compared: on the device, or the CPU, where the device has no fp64."""
    return torch.device("cpu") if device.type == "mps" else device


def _batches(texts: Sequence[str], config: Esm2Config, device_type: str, budget: int) -> list[PackedBatch]:
    """The shortest alone, then with the next longer, and so on: kernels differ by a batch's longest sequence.

    The last batch holds all of them as often as it may; where all exceed the budget, each stands alone. Ids are
    positions in ``texts``.
    """
    tokens = sum(map(len, texts)) + SPECIAL_TOKENS * len(texts)
    per_token = 24 * config.layers * config.embed_dim**2
    most = min(MOST_BATCH_TOKENS, budget, int(BATCH_OPERATIONS[device_type] / per_token))
    places = [list(range(count)) for count in range(1, len(texts) + 1)]
    places[-1] *= max(1, most // tokens)
    if tokens > budget:
        places = [[row] for row in range(len(texts))]
    batches = []
    for rows in places:
        ids, offsets = (torch.from_numpy(each) for each in tokenise_packed([texts[row] for row in rows]))
        batches.append(PackedBatch(ids, offsets, int(offsets.diff().max()), tuple(map(str, rows))))
    return batches


def _measure(
    model: PackedEsm2, plan: OutputPlan, batches: Sequence[PackedBatch], reference: Sequence[torch.Tensor]
) -> _Deviation | None:
    """The worst of all sequences; None where there is none to be measured.

    Those whose vectors overflow in 16 bits are left out: they are computed again in fp32, by the plain path, anyhow.
    """
    depth = model.config.layers
    kept = OutputPlan(tuple(dict.fromkeys((*plan.layers, depth))), tuple(dict.fromkeys((*plan.pooling, "mean"))))
    worst = []
    for batch in batches:
        ids, bounds = batch.input_ids.to(model.device), batch.cu_seqlens.to(model.device)
        resident = PackedBatch(ids, bounds, batch.max_seqlen, batch.sequence_ids)
        states = model.forward(ids, bounds, resident.positions, batch.max_seqlen, kept.layers)
        where = _place(model.device)
        vectors = {name: each.to(where) for name, each in pooled(model, states, bounds, kept).items()}
        wide = {layer: each.float().to(where) for layer, each in states.items()}
        plain = pooled_plainly(wide, bounds.to(where), kept)
        mean = next(name for name, column in kept.columns().items() if column == ("mean", depth))
        offsets = batch.cu_seqlens.tolist()
        for row, place in enumerate(map(int, batch.sequence_ids)):
            inner = slice(offsets[row] + 1, offsets[row + 1] - 1)
            ours, twin = wide[depth][inner], reference[place][1:-1]
            finite = all(bool(torch.isfinite(each[row]).all()) for each in vectors.values())
            if not finite and (model.precision != "fp32" or not bool(torch.isfinite(twin).all())):
                continue
            worst.append(
                _Deviation(
                    float(((ours - twin).norm(dim=1) / twin.norm(dim=1)).max()),
                    float(cosine_similarity(vectors[mean][row].double(), twin.double().mean(0), dim=0)),
                    max(
                        float((vectors[name][row] - each[row]).norm() / each[row].norm())
                        for name, each in plain.items()
                    ),
                )
            )
    return _worst(worst) if worst else None


def _worst(found: Sequence[_Deviation]) -> _Deviation:
    """The greatest and least of each; what is no number is the worst."""
    greatest = partial(max, key=lambda value: float("inf") if value != value else value)
    return _Deviation(
        greatest([each.residue_l2 for each in found]),
        -greatest([-each.pooled_cosine for each in found]),
        greatest([each.pooling_l2 for each in found]),
    )


def _rid(model: PackedEsm2) -> PackedEsm2:
    """The model, its device rid of what the check took and counting its peak of memory anew."""
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(model.device)
    return model


def _in_words(found: _Deviation, precision: str) -> str:
    """The measure that is farthest out, with its bound."""
    if not found.pooling_l2 <= POOLING_L2:
        return f"pooling is off by {found.pooling_l2:.1e} (at most {POOLING_L2:.0e})"
    cosine, residue = PARITY_BOUNDS[precision]
    bounds = f"{cosine}" if residue is None else f"{residue:.0e}, {cosine}"
    return (
        f"the greatest residue L2 to fp32 is {found.residue_l2:.1e} and the least pooled cosine "
        f"{found.pooled_cosine:.7f}, beyond {precision}'s bounds ({bounds})"
    )
