"""How far each precision is from fair-esm in fp32, and how far a sequence's vectors depend on its batch.

Every sequence goes through fair-esm alone, in true fp32, on the same GPU; ours runs them packed in shuffled order.
``--checkpoint`` measures trained weights; without it random weights are used whose attention logits have been
sharpened to a standard deviation of 3, because near-uniform attention hides faults. Writes
``benchmarks/results/parity-<name>.csv``.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from benchmarks.environment import RESULTS, conditions, write_csv
from benchmarks.inputs import ALL_SHAPES, logit_deviation, packed_batches, random_esm2, read_sequences, sharpen
from torch.nn.functional import cosine_similarity

from virnucpro.data.packed_batch import PackedBatch
from virnucpro.data.tokens import tokenise
from virnucpro.kernels.pooling import pool
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.weights import read_checkpoint

#: Residues of the shortest sequences that are compared.
FRAGMENTS = (1, 2, 3, 5, 11, 20)
#: Residue states per sequence, (n, D) fp32, and the pooled vector, (D,).
States = list[tuple[torch.Tensor, torch.Tensor]]


def trained_reference(checkpoint: Path, device: torch.device) -> Any:
    """A fair-esm ESM2 with the weights of a checkpoint in either layout; the language-model head stays random."""
    from esm import ESM2
    from esm.data import Alphabet

    config, state, _ = read_checkpoint(checkpoint)
    model = ESM2(config.layers, config.embed_dim, config.heads, alphabet=Alphabet.from_architecture("ESM-1b")).eval()
    missing, surplus = model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    heads = ("lm_head", "contact_head")
    if surplus or not all(key.startswith(heads) for key in missing):
        raise SystemExit(f"{checkpoint} does not fill the encoder: {surplus} {missing}")
    return model.to(device)


def sample_proteins(fasta: Path, count: int, max_length: int = 1022) -> list[str]:
    """Always the same proteins of a file, shuffled, six fragments of one of them included."""
    rng = random.Random(7)
    sequences = rng.sample(read_sequences(fasta, max_length), count - len(FRAGMENTS))
    sequences += [sequences[0][:length] for length in FRAGMENTS]
    rng.shuffle(sequences)
    return sequences


def reference_of(size: str, checkpoint: Path | None, sequences: list[str], device: torch.device) -> tuple[Any, float]:
    """fair-esm with the weights of a checkpoint, or random sharpened ones, and the deviation of its first logits."""
    ids = torch.from_numpy(tokenise(max(sequences, key=len)))[None].to(device)
    if checkpoint:
        model = trained_reference(checkpoint, device)
        return model, logit_deviation(model, ids)
    model = random_esm2(size, device)
    return model, sharpen(model, ids)


@torch.no_grad()
def reference_states(model: Any, sequences: list[str], device: torch.device) -> States:
    """Each sequence alone through fair-esm."""
    states = []
    for sequence in sequences:
        ids = torch.from_numpy(tokenise(sequence))[None].to(device)
        inner = model(ids, repr_layers=[model.num_layers])["representations"][model.num_layers][0, 1:-1]
        states.append((inner, inner.mean(0)))
    return states


@torch.no_grad()
def packed_states(model: PackedEsm2, batches: list[PackedBatch], count: int) -> States:
    """All batches through ours; ids are positions in the list of sequences."""
    states: list[Any] = [None] * count
    depth = model.config.layers
    for batch in batches:
        on_device = PackedBatch(
            batch.input_ids.to(model.device), batch.cu_seqlens.to(model.device), batch.max_seqlen, batch.sequence_ids
        )
        hidden = model.forward(
            on_device.input_ids, on_device.cu_seqlens, on_device.positions, batch.max_seqlen, (depth,), False
        )[depth].float()
        pooled = pool(hidden, on_device.cu_seqlens, "mean")
        offsets = batch.cu_seqlens.tolist()
        for row, name in enumerate(batch.sequence_ids):
            states[int(name)] = (hidden[offsets[row] + 1 : offsets[row + 1] - 1], pooled[row])
    return states


def compare(measured: States, reference: States) -> dict[str, float]:
    """Least pooled cosine of any sequence, and greatest and median relative L2 of any residue."""
    cosines, residues = [], []
    for (inner, pooled), (true_inner, true_pooled) in zip(measured, reference, strict=True):
        cosines.append(cosine_similarity(pooled.double(), true_pooled.double(), dim=0))
        residues.append((inner - true_inner).norm(dim=1) / true_inner.norm(dim=1))
    every = torch.cat(residues)
    return {
        "pooled_cosine_min": float(torch.stack(cosines).min()),
        "residue_relative_l2_max": float(every.max()),
        "residue_relative_l2_median": float(every.median()),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--size", choices=ALL_SHAPES, default="650M")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument(
        "--precisions",
        default="fp32,fp16,bf16,fp8",
        help="'bf16 plain' and the like: by PyTorch's operations alone; 'bf16 unfused': in the form of the layers that "
        "cards before and after Hopper have",
    )
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--budget", type=int, default=32_768)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device(options.device)
    sequences = sample_proteins(options.fasta, options.sequences)
    reference, spread = reference_of(options.size, options.checkpoint, sequences, device)
    truth = reference_states(reference, sequences, device)
    # Both of 15B do not fit onto one card.
    reference.cpu()
    batches = packed_batches(sequences, options.budget, pinned=False)
    alone = [batch for s in sequences[:20] for batch in packed_batches([s], options.budget, pinned=False)]
    alone = [PackedBatch(b.input_ids, b.cu_seqlens, b.max_seqlen, (str(i),)) for i, b in enumerate(alone)]
    rows: list[dict[str, object]] = []
    name = options.checkpoint.name if options.checkpoint else options.size
    for precision in options.precisions.split(","):
        kind, _, form = precision.partition(" ")
        model = PackedEsm2.from_fair_esm(
            reference, kind, device, plain=form == "plain", fused=False if form == "unfused" else None
        )
        packed = packed_states(model, batches, len(sequences))
        mates = compare(packed_states(model, alone, len(alone)), packed[: len(alone)])
        row = {
            "model": name,
            "weights": "trained" if options.checkpoint else "random, sharpened",
            "logit_deviation": spread,
            "precision": precision,
            "sequences": len(sequences),
            **compare(packed, truth),
            "alone_cosine_min": mates["pooled_cosine_min"],
            "alone_relative_l2_max": mates["residue_relative_l2_max"],
        }
        rows.append(row | {"data": options.fasta.name} | conditions())
        print(
            f"{row['model']} {precision}: cosine {row['pooled_cosine_min']:.8f}, residues "
            f"{row['residue_relative_l2_max']:.2e} (median {row['residue_relative_l2_median']:.2e}), alone "
            f"{row['alone_cosine_min']:.8f} {row['alone_relative_l2_max']:.2e}, logits {spread:.2f}",
            flush=True,
        )
        del model
        # After each, so that a run cut short leaves what it has.
        write_csv(options.out or RESULTS / f"parity-{name}.csv", rows)


if __name__ == "__main__":
    main()
