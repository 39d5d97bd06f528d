"""What most people write first: Hugging Face's EsmModel over padded batches of proteins sorted by length, mean-pooled.

    python benchmarks/peers/plain_script.py proteins.fasta MODEL_FOLDER vectors.npy

In bf16 on a GPU, in fp32 on a CPU. Its times go to standard error as one line of JSON, in unix seconds.
"""

from __future__ import annotations

import time

started = time.time()

import json  # noqa: E402
import sys  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import EsmModel  # noqa: E402

MAX_LENGTH = 1022
BATCH_TOKENS = 32_768
#: Token ids of ESM-2; every other letter is X.
VOCABULARY = {letter: index for index, letter in enumerate("LAGVSERTIDPKQNFYMHWCXBUZO", 4)}
CLS, PAD, EOS, UNKNOWN = 0, 1, 2, VOCABULARY["X"]


def read_fasta(path: str) -> list[str]:
    sequences: list[list[str]] = []
    with open(path, encoding="ascii") as lines:
        for line in lines:
            if line.startswith(">"):
                sequences.append([])
            else:
                sequences[-1].append(line.strip())
    return ["".join(parts)[:MAX_LENGTH] for parts in sequences]


def main(fasta: str, folder: str, out: str) -> None:
    marks = {"start": started, "imported": time.time()}
    sequences = read_fasta(fasta)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = EsmModel.from_pretrained(folder, dtype=dtype, add_pooling_layer=False, attn_implementation="sdpa")
    torch.nn.Module.to(model, device).eval()
    marks["loaded"] = time.time()
    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index]))
    vectors = np.zeros((len(sequences), model.config.hidden_size), np.float32)
    done = 0
    while done < len(order):
        size = max(1, BATCH_TOKENS // (len(sequences[order[done]]) + 2))
        batch = order[done : done + size]
        done += size
        rows = [
            torch.tensor([CLS, *(VOCABULARY.get(letter, UNKNOWN) for letter in sequences[index]), EOS])
            for index in batch
        ]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD).to(device)
        residues = ((tokens != CLS) & (tokens != PAD) & (tokens != EOS))[..., None]
        with torch.inference_mode():
            states = model(tokens, attention_mask=(tokens != PAD).long()).last_hidden_state
            vectors[batch] = ((states * residues).sum(1) / residues.sum(1)).float().cpu().numpy()
    marks["computed"] = time.time()
    np.save(out, vectors)
    marks["end"] = time.time()
    print(json.dumps(marks), file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:4])
