"""A stand-in checkpoint in fair-esm's own layout, with random weights: for timing and tests where no hub is in reach.

With ``--hub`` it goes where ``esm.pretrained`` looks for the official file, so that code which loads a model by name
runs. The embeddings mean nothing.
"""

from __future__ import annotations

import argparse
from argparse import Namespace
from pathlib import Path

import torch

from benchmarks.inputs import SHAPES, random_esm2

OFFICIAL = {
    "8M": "esm2_t6_8M_UR50D",
    "150M": "esm2_t30_150M_UR50D",
    "650M": "esm2_t33_650M_UR50D",
    "3B": "esm2_t36_3B_UR50D",
}


def write_checkpoint(size: str, path: Path) -> None:
    """Write ``path`` and, beside it, the contact regression that fair-esm insists on."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = random_esm2(size, device).cpu()
    config = Namespace(
        encoder_layers=model.num_layers,
        encoder_embed_dim=model.embed_dim,
        encoder_attention_heads=model.attention_heads,
        token_dropout=True,
    )
    state, regression = {}, {}
    for key, value in model.state_dict().items():
        if key.startswith("contact_head"):
            regression[key] = value
        elif key.startswith("lm_head"):
            state[f"encoder.{key}"] = value
        else:
            state[f"encoder.sentence_encoder.{key}"] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"cfg": {"model": config}, "model": state}, path)
    torch.save({"model": regression}, path.with_name(f"{path.stem}-contact-regression.pt"))


def main() -> None:
    """Write the checkpoint and say where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SHAPES, default="650M")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path)
    where.add_argument("--hub", action="store_true")
    options = parser.parse_args()
    name = f"{OFFICIAL[options.size]}.pt"
    path = Path(torch.hub.get_dir()) / "checkpoints" / name if options.hub else options.out
    write_checkpoint(options.size, path)
    print(f"{path}: random weights in the shape of {OFFICIAL[options.size]}")


if __name__ == "__main__":
    main()
