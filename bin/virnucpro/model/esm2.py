"""ESM-2 over packed tokens: many sequences end to end in one row of tokens, no padding anywhere.

Lin et al., "Evolutionary-scale prediction of atomic-level protein structure with a language model", Science 2023;
numerically the encoder of fair-esm 2.0.0 in fp32. The language-model and contact heads are left out.

Shape letters: T tokens of the batch, S sequences, D embed_dim, N heads, H head_dim, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from virnucpro.errors import ModelError, UsageError
from virnucpro.kernels.attention import attention_backend
from virnucpro.kernels.device import plain_operations, uses_hopper, uses_triton
from virnucpro.model.embedding import Embedding
from virnucpro.model.families import nearest_family
from virnucpro.model.layers import EncoderLayer
from virnucpro.model.parameters import (
    ParameterBuilder,
    dtype_of,
    inv_freq_key,
    precision_of,
    trained_inv_freq,
)
from virnucpro.model.paths import prefers_fused
from virnucpro.model.projections import LayerNorm, Packing
from virnucpro.model.registry import Esm2Config
from virnucpro.model.strangers import ADVICE


class PackedEsm2:
    """The ESM-2 encoder over packed tokens. Build it with ``from_state`` or ``from_fair_esm``.

    Attributes:
        plain: whether it computes with PyTorch's own operations alone, and no kernel of ours.
    """

    def __init__(
        self,
        config: Esm2Config,
        precision: str,
        embedding: Embedding,
        layers: Sequence[EncoderLayer],
        final_norm: LayerNorm,
        plain: bool = False,
    ) -> None:
        self.config = config
        self.precision = precision
        self._embedding = embedding
        self._layers = tuple(layers)
        self._final_norm = final_norm
        self.plain = plain

    @property
    def device(self) -> torch.device:
        return self._embedding.table.device

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.precision)

    @property
    def attention_backend(self) -> str:
        """What computes attention for this model, by the name that ``kernels.attention`` gives it."""
        with self.operations():
            return attention_backend(torch.empty(0, dtype=self.dtype, device=self.device))

    @property
    def has_kernels(self) -> bool:
        """Whether anything that it computes is computed by kernels of ours."""
        with self.operations():
            return uses_triton(torch.empty(0, device=self.device))

    def operations(self) -> AbstractContextManager[None]:
        """Where what this model computes, and what is computed of it, is to run."""
        return plain_operations() if self.plain else nullcontext()

    @classmethod
    def from_state(
        cls,
        config: Esm2Config,
        state: Mapping[str, Tensor],
        precision: str,
        device: torch.device | str,
        *,
        fused: bool | None = None,
        plain: bool = False,
    ) -> PackedEsm2:
        """Build the model from a state dict in fair-esm's key names, such as ``read_checkpoint`` returns.

        Each tensor is moved and cast on its own; the model shares no memory with ``state``. ``fused`` chooses the form
        of the layers: unless given, the fused one where kernels for it exist, on Hopper, and `prefers_fused` has it. A
        ``plain`` model has none of our kernels, and the form that keeps the bits that rounding takes, where one does.

        Raises:
            UsageError: a precision that this model does not run in.
        """
        dtype = dtype_of(precision)
        builder = ParameterBuilder(config, state, dtype, torch.device(device))
        if fused is None:
            hopper = uses_hopper(torch.empty(0, dtype=dtype, device=device))
            fused = (
                precision != "fp8" and builder.keeps_low_parts if plain else hopper and prefers_fused(config, precision)
            )
        layer = builder.form(precision, fused=fused)
        embedding = builder.embedding(wide=fused and precision != "fp8")
        with plain_operations() if plain else nullcontext():
            layers = [layer(index) for index in range(config.layers)]
        return cls(config, precision, embedding, layers, builder.layer_norm("emb_layer_norm_after"), plain)

    @classmethod
    def from_fair_esm(
        cls,
        model: Any,
        precision: str | None = None,
        device: torch.device | str | None = None,
        *,
        fused: bool | None = None,
        plain: bool = False,
    ) -> PackedEsm2:
        """Repack a loaded model of fair-esm: an ``ESM2``, or the ``ProteinBertModel`` that an ESM-1b or ESM-1v is.

        Precision and device default to those of its weights; ``fused`` and ``plain`` are as in ``from_state``.

        Raises:
            ModelError: another family, or rotary frequencies that a cast to bf16 has spoilt.
            UsageError: a precision that this model does not run in.
        """
        state = {key: value for key, value in model.state_dict().items() if not key.startswith(("lm_", "contact_"))}
        family = nearest_family(state)
        if not family.holds(state):
            raise ModelError(f"a {type(model).__name__} of fair-esm that is no ESM-2, ESM-1b or ESM-1v; {ADVICE}")
        table = state["embed_tokens.weight"]
        # The older class keeps its sizes in ``args``.
        sizes = getattr(model, "args", model)
        dropout = bool(getattr(sizes, "token_dropout", False))
        config = Esm2Config("fair-esm", model.num_layers, sizes.embed_dim, sizes.attention_heads, dropout, family)
        for key in map(inv_freq_key, range(config.layers)):
            unturned = torch.zeros(config.head_dim // 2)
            state[key] = unturned if family.rotary_base is None else _undo_bfloat16(state[key])
        if precision is None:
            precision = precision_of(table.dtype)
        device = table.device if device is None else device
        return cls.from_state(config, state, precision, device, fused=fused, plain=plain)

    def forward(
        self,
        ids_T: Tensor,
        cu_seqlens: Tensor,
        positions_T: Tensor,
        max_seqlen: int,
        layers: Sequence[int],
        masked: bool | None = None,
    ) -> dict[int, Tensor]:
        """Hidden states of the layers asked for.

        Args:
            ids_T: (T,) token ids, each sequence as <cls> residues <eos>, on the model's device.
            cu_seqlens: (S+1,) int32, offsets of the sequences; the last is T.
            positions_T: (T,) int32, position of each token in its sequence, 0 at <cls>.
            max_seqlen: tokens of the longest sequence.
            layers: 0 is the embedding, i the output of layer i without norm, the last layer's with the final norm.
            masked: whether <mask> occurs in ``ids_T``; None looks, which on CUDA waits for the device.

        Returns:
            layer -> (T, D); the last layer in fp32, the others in the model's precision.

        Raises:
            UsageError: no layer, or one that the model does not have.
        """
        with torch.inference_mode(), self.operations():
            wanted = self._check_layers(layers)
            packing = Packing(cu_seqlens, positions_T, max_seqlen)
            return self._run(self._embedding(ids_T, packing, masked), packing, wanted)

    __call__ = forward

    def _check_layers(self, layers: Sequence[int]) -> frozenset[int]:
        wanted = frozenset(layers)
        strangers = sorted(layer for layer in wanted if not 0 <= layer <= self.config.layers)
        if not wanted or strangers:
            asked = ", ".join(map(str, strangers)) or "none"
            raise UsageError(f"layers asked for: {asked}; model {self.config.name} has 0 to {self.config.layers}")
        return wanted

    def _run(self, x_TD: Tensor, packing: Packing, wanted: frozenset[int]) -> dict[int, Tensor]:
        last = max(wanted)
        kept = {0: x_TD.to(self.dtype, copy=True)} if 0 in wanted else {}
        if not last:
            return kept
        stream = self._layers[0].begin(x_TD)
        for number, layer in enumerate(self._layers[:last], start=1):
            stream = layer(stream, packing)
            if number in wanted and number < self.config.layers:
                kept[number] = layer.output(stream)
        if last == self.config.layers:
            kept[last] = self._layers[-1].finish(stream, self._final_norm)
        return kept


def _undo_bfloat16(inv_freq_H: Tensor) -> Tensor:
    """A model cast to bf16 has lost its frequencies; where they were the trained ones, take those again."""
    if inv_freq_H.dtype != torch.bfloat16:
        return inv_freq_H
    trained = trained_inv_freq(2 * inv_freq_H.numel()).to(inv_freq_H.device)
    if not torch.allclose(trained, inv_freq_H.float(), rtol=2**-7):
        raise ModelError("the model's rotary frequencies were rounded to bf16; pass it in fp32 or fp16")
    return trained
