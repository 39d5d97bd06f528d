"""Writes the corpus that fuzzers begin with, of small files of every kind that a target reads."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from fuzz.targets import CORPUS, tiny_weights
from merge.merge_runs import Run
from safetensors.torch import save

from virnucpro.merge.merge import merge

FIXTURES = Path(__file__).parents[1] / "fixtures"


def fasta() -> Iterator[tuple[str, bytes]]:
    """The fixtures, and what they do not hold."""
    for path in sorted(FIXTURES.glob("*.fasta")):
        if path.stat().st_size < 4000:
            yield path.stem, b"\2" + path.read_bytes()
    yield "gaps_rejected", bytes([3 + 2 * 7]) + b">a\nMK-V.\n>b\nMKV*.\n>c\nM.K*\n"
    yield "gaps_unknown", bytes([1 + 7]) + b">a\nMK-V.\n>b\nMKV*.\n>c\nM.K*\n"
    yield "comments", b"\4" + b"#x\n;y\n>a b\tc\n;z\nMKJ\n\n;>\n>\xc3\xa9\nMK\n>\n1\n>q\n"


def checkpoint() -> Iterator[tuple[str, bytes]]:
    """Weights by torch.save, old and new, by safetensors, and a config.json."""
    state = {f"encoder.sentence_encoder.{name}": value for name, value in tiny_weights().items()}
    settings = {"encoder_layers": 1, "encoder_embed_dim": 4, "encoder_attention_heads": 2, "token_dropout": True}
    for name, zipped in (("zip", True), ("legacy", False)):
        buffer = io.BytesIO()
        torch.save({"cfg": {"model": settings}, "model": state}, buffer, _use_new_zipfile_serialization=zipped)
        yield name, b"\0" + buffer.getvalue()
    yield "safetensors", b"\1" + save(tiny_weights())
    config = {"model_type": "esm", "num_hidden_layers": 1, "hidden_size": 4, "num_attention_heads": 2}
    config |= {
        "vocab_size": 33,
        "intermediate_size": 16,
        "position_embedding_type": "rotary",
        "layer_norm_eps": 1e-5,
        "token_dropout": True,
    }
    yield "config", b"\2" + json.dumps(config).encode()


def contracts() -> Iterator[tuple[str, bytes]]:
    """One of each record, with and without its digest."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), [0, 1, 2, None])
        merge(run.config())
        for name in (
            "model.json",
            "split_summary.json",
            "shard-00000/summary.json",
            "results/metrics/run_summary.json",
        ):
            content = (Path(folder) / name).read_bytes()
            yield Path(name).stem if "/" not in name else Path(name).parts[-2], content
            bare = {field: value for field, value in json.loads(content).items() if field != "digest"}
            yield f"{Path(name).parts[-2] if '/' in name else Path(name).stem}_bare", json.dumps(bare).encode()


def merges() -> Iterator[tuple[str, bytes]]:
    """A change of each kind."""
    for kind in range(3):
        yield f"change{kind}", bytes([kind, kind, 0, 0, 9]) + b"\xff\0"


def main() -> int:
    for target, items in (
        ("fasta", fasta()),
        ("checkpoint", checkpoint()),
        ("contracts", contracts()),
        ("merge", merges()),
    ):
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, content in items:
            (CORPUS / target / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
