"""The plain twin of a packed model: the same weights in fp32, each sequence alone, by PyTorch's own operations.

It shares neither kernels nor layers with `PackedEsm2`, so that no fault of those is its own. One layer is on the device
at a time, whatever the model's size.

Shape letters: n tokens of one sequence, D embed_dim, N heads, H half of head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from virnucpro.model.embedding import MASK
from virnucpro.model.families import FIRST_NORM, FIRST_POSITION, POSITION_TABLE
from virnucpro.model.parameters import TRAINING_MASK_SHARE, inv_freq_key
from virnucpro.model.weights import Checkpoint, open_checkpoint

#: Queries of one sequence whose logits are in memory at once.
QUERIES: Final = 512
_EPS: Final = 1e-5


def twin_states(source: Path | Checkpoint, sequences: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The last layer's states, after the final norm, of each sequence alone.

    Args:
        source: the checkpoint, or where it lies.
        sequences: token ids (n,), <cls> and <eos> included.
        device: where to compute.

    Returns:
        (n, D) fp32 on ``device`` for each sequence.

    Raises:
        InputMissingError, ModelError: as ``open_checkpoint``.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    exact = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.inference_mode():
            states = [_embed(_Part(checkpoint, "", device), ids.to(device)) for ids in sequences]
            for index in range(checkpoint.config.layers):
                layer = _Part(checkpoint, f"layers.{index}.", device)
                inv_freq_H = layer.tensor(inv_freq_key(index).removeprefix(layer.prefix))
                states = [_layer(layer, x_nD, inv_freq_H) for x_nD in states]
            last = _Part(checkpoint, "", device)
            return [last.norm("emb_layer_norm_after", x_nD) for x_nD in states]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = exact


class _Part:
    """Tensors of a checkpoint whose names begin alike, in fp32 on the device once they were asked for."""

    def __init__(self, checkpoint: Checkpoint, prefix: str, device: torch.device) -> None:
        self.config = checkpoint.config
        self.prefix = prefix
        self._checkpoint = checkpoint
        self._device = device
        self._tensors: dict[str, Tensor] = {}

    def tensor(self, name: str) -> Tensor:
        if name not in self._tensors:
            found = self._checkpoint.state[self.prefix + name].detach()
            self._tensors[name] = found.to(self._device).float()
        return self._tensors[name]

    def linear(self, name: str, x_nD: Tensor) -> Tensor:
        return functional.linear(x_nD, self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"))

    def norm(self, name: str, x_nD: Tensor) -> Tensor:
        weight_D, bias_D = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        return functional.layer_norm(x_nD, x_nD.shape[-1:], weight_D, bias_D, _EPS)


def _embed(part: _Part, ids_n: Tensor) -> Tensor:
    x_nD = part.tensor("embed_tokens.weight")[ids_n]
    if part.config.token_dropout:
        masks_n = ids_n == MASK
        x_nD = x_nD.masked_fill(masks_n[:, None], 0.0)
        x_nD = x_nD * ((1 - TRAINING_MASK_SHARE) / (1 - masks_n.float().mean()))
    tensors = part.config.family.tensors
    if POSITION_TABLE in tensors:
        x_nD = x_nD + part.tensor(POSITION_TABLE)[FIRST_POSITION : FIRST_POSITION + ids_n.numel()]
    return part.norm(FIRST_NORM, x_nD) if f"{FIRST_NORM}.weight" in tensors else x_nD


def _layer(part: _Part, x_nD: Tensor, inv_freq_H: Tensor) -> Tensor:
    normed_nD = part.norm("self_attn_layer_norm", x_nD)
    query, key, value = (
        part.linear(f"self_attn.{name}_proj", normed_nD).view(len(x_nD), part.config.heads, -1).transpose(0, 1)
        for name in "qkv"
    )
    attended = _attention(_rotated(query, inv_freq_H), _rotated(key, inv_freq_H), value)
    x_nD = x_nD + part.linear("self_attn.out_proj", attended.transpose(0, 1).reshape(x_nD.shape))
    hidden_nF = functional.gelu(part.linear("fc1", part.norm("final_layer_norm", x_nD)))
    return x_nD + part.linear("fc2", hidden_nF)


def _rotated(x_NnH: Tensor, inv_freq_H: Tensor) -> Tensor:
    """Element i of a head (N, n, 2H) turned with element i + H, by position times frequency."""
    positions_n = torch.arange(x_NnH.shape[1], dtype=torch.float32, device=x_NnH.device)
    angles_nH = torch.outer(positions_n, inv_freq_H)
    cos_nH, sin_nH = angles_nH.cos(), angles_nH.sin()
    first, second = x_NnH.chunk(2, dim=-1)
    return torch.cat((first * cos_nH - second * sin_nH, second * cos_nH + first * sin_nH), dim=-1)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(N, n, 2H), some queries at a time."""
    scale = query.shape[-1] ** -0.5
    return torch.cat([(rows @ key.mT * scale).softmax(-1) @ value for rows in query.split(QUERIES, dim=1)], dim=1)
