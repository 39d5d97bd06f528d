"""Real sequences and random weights for the benchmarks. T tokens, S sequences."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from virnucpro.data import VarlenCollator
from virnucpro.data.packed_batch import PackedBatch
from virnucpro.data.packing import pack
from virnucpro.fasta import read_records
from virnucpro.model.families import ESM_1B, ESM_1V, ESM_2
from virnucpro.model.registry import Esm2Config
from virnucpro.pipeline.budget import token_budget

#: Layers, embedding dimension, heads.
SHAPES = {
    "8M": (6, 320, 20),
    "35M": (12, 480, 20),
    "150M": (30, 640, 20),
    "650M": (33, 1280, 20),
    "3B": (36, 2560, 40),
    "15B": (48, 5120, 40),
}
#: The families that come in one size.
FAMILIES = {"ESM-1b": ESM_1B, "ESM-1v": ESM_1V}
ALL_SHAPES = SHAPES | dict.fromkeys(FAMILIES, SHAPES["650M"])
#: A logit standard deviation at which attention is sharp and a random network not yet chaotic.
SHARP_LOGITS = 3.0


def read_sequences(fasta: Path, max_length: int = 1022) -> list[str]:
    """Sequences of a FASTA file, cut to ``max_length`` residues, longest first."""
    return sorted((record.sequence[:max_length] for record in read_records(fasta)), key=len, reverse=True)


def config_of(size: str, layers: int | None = None) -> Esm2Config:
    """The encoder of a size, with so many of its layers."""
    depth, dim, heads = ALL_SHAPES[size]
    return Esm2Config(size, layers or depth, dim, heads, family=FAMILIES.get(size, ESM_2))


def budget_of(size: str, precision: str, device: str, asked: int | None) -> int:
    """Tokens per batch that the pipeline would take on this device, unless asked for others."""
    return token_budget(config_of(size), precision, torch.device(device), asked, 1)


def packed_batches(sequences: Sequence[str], budget: int, *, pinned: bool) -> list[PackedBatch]:
    """The batches that the loader would make of ``sequences``."""
    items = [{"id": str(i), "sequence": sequence, "file": ""} for i, sequence in enumerate(sequences)]
    collate = VarlenCollator(None, max_tokens=budget)
    batches = [PackedBatch.from_dict(collate(group)) for group in pack(items, budget)]
    return [batch.pin_memory() for batch in batches] if pinned else batches


def flops(lengths: Iterable[int], layers: int, dim: int) -> float:
    """Floating-point operations of the encoder for sequences of ``lengths`` tokens: 24Ld²n + 4Ldn² each."""
    return float(sum(24 * layers * dim**2 * n + 4 * layers * dim * n**2 for n in lengths))


def random_esm2(size: str, device: torch.device, seed: int = 0) -> Any:
    """A fair-esm model of the named size with normal weights of standard deviation 0.02, made on ``device``."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = _fair_esm(size).eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.02)
    return model.to(device)


def _fair_esm(size: str) -> Any:
    from esm import ESM2
    from esm.data import Alphabet
    from esm.model.esm1 import ProteinBertModel

    layers, dim, heads = ALL_SHAPES[size]
    alphabet = Alphabet.from_architecture("ESM-1b")
    if size not in FAMILIES:
        return ESM2(layers, dim, heads, alphabet=alphabet)
    sizes = argparse.Namespace(
        arch="roberta_large",
        layers=layers,
        embed_dim=dim,
        ffn_embed_dim=4 * dim,
        attention_heads=heads,
        max_positions=1024,
        token_dropout=True,
        emb_layer_norm_before=size == "ESM-1b",
    )
    return ProteinBertModel(sizes, alphabet)


def sharpen(model: Any, ids: torch.Tensor, target: float = SHARP_LOGITS) -> float:
    """Scale every q and k weight until the first layer's logits have the standard deviation ``target``; returns it.

    Args:
        model: a fair-esm ESM2, or the older class of ESM-1b and ESM-1v.
        ids: (1, T) tokens of one sequence on the model's device.
    """
    measured = logit_deviation(model, ids)
    factor = (target / measured) ** 0.5
    with torch.no_grad():
        for layer in model.layers:
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                projection.weight.mul_(factor)
                projection.bias.mul_(factor)
    return logit_deviation(model, ids)


def logit_deviation(model: Any, ids: torch.Tensor) -> float:
    """Standard deviation of the first layer's attention logits."""
    attention = model.layers[0].self_attn
    with torch.no_grad():
        x = model(ids, repr_layers=[0])["representations"][0][0]
        x = model.layers[0].self_attn_layer_norm(x)
        query = attention.q_proj(x).view(len(x), attention.num_heads, -1) * attention.scaling
        key = attention.k_proj(x).view(len(x), attention.num_heads, -1)
        return float(torch.einsum("ihd,jhd->hij", query, key).std())


def padded_groups(lengths: Sequence[int], order: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in groups whose padded size stays within ``budget`` tokens, as length-sorted padding tools do."""
    group: list[int] = []
    longest = 0
    for index in order:
        longest = max(longest, lengths[index])
        if group and longest * (len(group) + 1) > budget:
            yield group
            group, longest = [], lengths[index]
        group.append(index)
    if group:
        yield group
