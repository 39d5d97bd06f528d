"""What fair-esm's own extract script does, through the installed package: one padded batch at a time, one .pt each.

The package on PyPI leaves the script out. Its steps and defaults are kept: batches of ``toks_per_batch`` padded tokens
in order of length, all outputs of the model computed, mean over residues, a file per protein.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from esm import ESM2, Alphabet, FastaBatchedDataset

from virnucpro.model.weights import read_checkpoint


def load_reference(checkpoint: Path) -> tuple[ESM2, Alphabet]:
    """A fair-esm model with the weights of any checkpoint that we read."""
    config, state, _ = read_checkpoint(checkpoint)
    alphabet = Alphabet.from_architecture("ESM-1b")
    model = ESM2(config.layers, config.embed_dim, config.heads, alphabet, config.token_dropout)
    result = model.load_state_dict(state, strict=False)
    if result.unexpected_keys or any(not key.startswith(("lm_head", "contact_head")) for key in result.missing_keys):
        raise SystemExit(f"{checkpoint}: fair-esm does not take these weights: {result}")
    return model.eval(), alphabet


def extract(fasta: Path, checkpoint: Path, outdir: Path, toks_per_batch: int, truncation: int) -> None:
    """Write the mean of the last layer of each protein to ``outdir``."""
    model, alphabet = load_reference(checkpoint)
    dataset = FastaBatchedDataset.from_file(fasta)
    batches = dataset.get_batch_indices(toks_per_batch, extra_toks_per_seq=1)
    loader = torch.utils.data.DataLoader(
        dataset, collate_fn=alphabet.get_batch_converter(truncation), batch_sampler=batches
    )
    outdir.mkdir(parents=True, exist_ok=True)
    last = model.num_layers
    with torch.no_grad():
        for labels, sequences, tokens in loader:
            states = model(tokens, repr_layers=[last], return_contacts=False)["representations"][last]
            for row, (label, sequence) in enumerate(zip(labels, sequences, strict=True)):
                mean = states[row, 1 : min(truncation, len(sequence)) + 1].mean(0).clone()
                torch.save({"label": label, "mean_representations": {last: mean}}, outdir / f"{label}.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--toks-per-batch", type=int, default=4096)
    parser.add_argument("--truncation", type=int, default=1022)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    extract(options.fasta, options.checkpoint, options.outdir, options.toks_per_batch, options.truncation)


if __name__ == "__main__":
    main()
