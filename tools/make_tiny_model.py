#!/usr/bin/env python3
"""Writes assets/esm2_tiny: an ESM-2 of two layers with random weights, as ``save_pretrained`` lays it out.

    tools/make_tiny_model.py [FOLDER]

It lets ``-profile test`` run from a plain clone, without a download. Its vectors mean nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

FOLDER = Path(__file__).parents[1] / "assets" / "esm2_tiny"
LAYERS, DIM, HEADS, VOCABULARY = 2, 32, 2, 33
CONFIG = {
    "architectures": ["EsmModel"],
    "model_type": "esm",
    "emb_layer_norm_before": False,
    "hidden_act": "gelu",
    "hidden_size": DIM,
    "intermediate_size": 4 * DIM,
    "layer_norm_eps": 1e-05,
    "mask_token_id": 32,
    "max_position_embeddings": 1026,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "pad_token_id": 1,
    "position_embedding_type": "rotary",
    "token_dropout": True,
    "torch_dtype": "float32",
    "vocab_size": VOCABULARY,
}


def tensors() -> dict[str, np.ndarray]:
    """All of them by their names, the same each time."""
    rng = np.random.Generator(np.random.PCG64(2))
    made: dict[str, np.ndarray] = {}

    def linear(name: str, rows: int, columns: int) -> None:
        made[f"{name}.weight"] = rng.standard_normal((rows, columns)) / columns**0.5
        made[f"{name}.bias"] = 0.1 * rng.standard_normal(rows)

    def norm(name: str) -> None:
        made[f"{name}.weight"] = 1 + 0.1 * rng.standard_normal(DIM)
        made[f"{name}.bias"] = 0.1 * rng.standard_normal(DIM)

    made["embeddings.word_embeddings.weight"] = rng.standard_normal((VOCABULARY, DIM))
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        norm(f"{layer}.attention.LayerNorm")
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", DIM, DIM)
        linear(f"{layer}.attention.output.dense", DIM, DIM)
        norm(f"{layer}.LayerNorm")
        linear(f"{layer}.intermediate.dense", 4 * DIM, DIM)
        linear(f"{layer}.output.dense", DIM, 4 * DIM)
    norm("encoder.emb_layer_norm_after")
    return {name: array.astype(np.float32) for name, array in made.items()}


def main() -> None:
    """Write the folder and say where."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors(), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    print(f"{folder}: {LAYERS} layers of {DIM} dimensions, random weights")


if __name__ == "__main__":
    main()
