"""The parameters of a packed ESM-2: how a state dict in fair-esm's key names becomes the parts that the network runs.

Shape letters: V vocabulary, D embed_dim, H head_dim, P positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from virnucpro.config import PRECISIONS
from virnucpro.errors import UsageError
from virnucpro.kernels.fp8_linear import quantise_rows
from virnucpro.kernels.fused_fp8 import hidden_factor
from virnucpro.kernels.fused_linear import fold_norm, interleave_pairs
from virnucpro.kernels.high_low import HighLow
from virnucpro.kernels.rotary import Rotation
from virnucpro.kernels.scaled_linear import scales_inside
from virnucpro.model.embedding import MASK, Embedding
from virnucpro.model.families import ESM_2, FIRST_NORM, FIRST_POSITION, FREQUENCIES, POSITION_TABLE
from virnucpro.model.layers import EncoderLayer, Fp8FusedLayer, Fp8PlainLayer, FusedLayer, HighLowLinear, PlainLayer
from virnucpro.model.projections import (
    Fp8FeedForward,
    Fp8LayerNorm,
    Fp8Linear,
    Fp8RotaryLinear,
    GeluLinear,
    LayerNorm,
    Linear,
    NormInsideGeluLinear,
    NormInsideRotaryLinear,
    RotaryLinear,
    RotaryTable,
)
from virnucpro.model.registry import Esm2Config

#: 15 % of training tokens were chosen and 80 % of those masked; embeddings are scaled to that share of unmasked ones.
TRAINING_MASK_SHARE: Final = 0.15 * 0.8
#: What each precision keeps the residual stream in.
DTYPES: Final = {name: getattr(torch, precision.stream) for name, precision in PRECISIONS.items()}
#: Up to this head_dim queries and keys carry twice the bits of a 16-bit precision. Rounding them is the largest error
#: of a small model, and attention over so few dimensions has the matrix units idle.
LOW_QUERIES_HEAD_DIM: Final = 32
#: Up to this head_dim the residual stream carries them too, and in bf16 the weights.
LOW_STREAM_HEAD_DIM: Final = 16


class ParameterBuilder:
    """Turns a canonical state dict into the model's parts, one tensor at a time."""

    def __init__(
        self, config: Esm2Config, state: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device
    ) -> None:
        self._config = config
        self._state = state
        self._dtype = dtype
        self._device = device
        self._low_queries = config.head_dim in (16, LOW_QUERIES_HEAD_DIM)
        self._low_stream = config.head_dim <= LOW_STREAM_HEAD_DIM
        self._low_weights = self._low_stream and dtype == torch.bfloat16
        self._rotaries: list[tuple[Tensor, RotaryTable]] = []
        self._lacks = [torch.zeros(config.embed_dim, device=device)]

    @property
    def keeps_low_parts(self) -> bool:
        """Whether the fused form keeps what rounding to this precision takes, which the plain form never does."""
        return self._dtype != torch.float32 and self._low_queries

    def embedding(self, *, wide: bool) -> Embedding:
        """``wide`` in fp32 where the residual stream has more bits than the model's precision."""
        table_VD = self._take("embed_tokens.weight", torch.float32)
        if self._config.token_dropout:
            table_VD *= 1 - TRAINING_MASK_SHARE
            table_VD[MASK] = 0.0
        dtype = torch.float32 if wide and self._low_stream else self._dtype
        tensors = self._config.family.tensors
        if POSITION_TABLE not in tensors:
            return Embedding(table_VD.to(dtype), dtype, self._config.token_dropout)
        positions_PD = self._take(POSITION_TABLE, torch.float32)[FIRST_POSITION:]
        norm = self.layer_norm(FIRST_NORM) if f"{FIRST_NORM}.weight" in tensors else None
        return Embedding(table_VD, dtype, self._config.token_dropout, positions_PD, norm)

    def form(self, precision: str, *, fused: bool) -> Callable[[int], EncoderLayer]:
        """Which of the forms below the layers have."""
        if precision == "fp8":
            return self.fp8_fused_layer if fused else self.fp8_layer
        return self.fused_layer if fused else self.plain_layer

    def plain_layer(self, index: int) -> PlainLayer:
        """The layer in the model's precision, with its norms inside the products after them where kernels do so."""
        prefix = f"layers.{index}."
        return PlainLayer(
            heads=self._config.heads,
            qkv=self._norm_qkv(prefix, self._lack(2 * index)),
            out=self._take(prefix + "self_attn.out_proj.weight", self._dtype),
            up=self._norm_up(prefix, self._lack(2 * index + 1)),
            down=self._take(prefix + "fc2.weight", self._dtype),
            rotary=self._rotary(index),
            lack=self._lack(2 * index + 2),
        )

    def fp8_layer(self, index: int) -> Fp8PlainLayer:
        """The layer with e4m3 operands in all products but attention's and the one after it."""
        prefix = f"layers.{index}."
        return Fp8PlainLayer(
            heads=self._config.heads,
            attention_norm=Fp8LayerNorm(self.layer_norm(prefix + "self_attn_layer_norm")),
            qkv=Fp8RotaryLinear(
                self._fp8_linear(*(f"{prefix}self_attn.{part}_proj" for part in "qkv")), self._config.heads
            ),
            out=self._linear(prefix + "self_attn.out_proj"),
            ffn_norm=Fp8LayerNorm(self.layer_norm(prefix + "final_layer_norm")),
            feed_forward=Fp8FeedForward(self._fp8_linear(prefix + "fc1"), self._fp8_linear(prefix + "fc2")),
            rotary=self._rotary(index),
        )

    def fused_layer(self, index: int) -> FusedLayer:
        """The layer with its norms folded into the products after them; folded in fp32, then cast."""
        prefix = f"layers.{index}."
        return FusedLayer(
            dtype=self._dtype,
            heads=self._config.heads,
            qkv=self._high_low(*self._folded_qkv(prefix)),
            out=self._high_low(*self._take_linear(prefix + "self_attn.out_proj")),
            up=self._high_low(*self._folded(prefix + "fc1", self.layer_norm(prefix + "final_layer_norm"))),
            down=self._high_low(*self._take_linear(prefix + "fc2")),
            rotary=self._rotary(index),
            low_queries=self._low_queries,
            low_stream=self._low_stream,
        )

    def fp8_fused_layer(self, index: int) -> Fp8FusedLayer:
        """The fused layer in e4m3; folded in fp32, then quantised."""
        prefix = f"layers.{index}."
        up_weight, up_bias = self._folded(prefix + "fc1", self.layer_norm(prefix + "final_layer_norm"))
        factor = hidden_factor(up_weight, up_bias)
        down_weight, down_bias = self._take_linear(prefix + "fc2")
        values, scale = quantise_rows(down_weight)
        qkv_weight, qkv_bias = self._folded_qkv(prefix)
        return Fp8FusedLayer(
            heads=self._config.heads,
            qkv=Fp8Linear(quantise_rows(qkv_weight), qkv_bias),
            out=self._linear(prefix + "self_attn.out_proj"),
            up=Fp8Linear(quantise_rows(up_weight), up_bias),
            down=Fp8Linear((values, scale / factor), down_bias),
            hidden_factor=factor,
            rotary=self._rotary(index),
        )

    def _lack(self, sublayers: int) -> Tensor:
        """(D,) fp32, the sum of the biases that so many sublayers, two a layer, add to the stream."""
        while len(self._lacks) <= sublayers:
            index, second = divmod(len(self._lacks) - 1, 2)
            bias_D = self._take(f"layers.{index}.{'fc2' if second else 'self_attn.out_proj'}.bias", torch.float32)
            self._lacks.append(self._lacks[-1] + bias_D)
        return self._lacks[sublayers]

    def _norm_qkv(self, prefix: str, lack_D: Tensor) -> Callable[[Tensor, Rotation], Tensor]:
        if self._scales_inside:
            return NormInsideRotaryLinear(*self._norm_inside(*self._folded_qkv(prefix), lack_D))
        norm = self.layer_norm(prefix + "self_attn_layer_norm")
        linear = self._linear(*(f"{prefix}self_attn.{part}_proj" for part in "qkv"))
        return RotaryLinear(norm, linear, self._config.heads, lack_D)

    def _norm_up(self, prefix: str, lack_D: Tensor) -> Callable[[Tensor], Tensor]:
        norm = self.layer_norm(prefix + "final_layer_norm")
        if self._scales_inside:
            return NormInsideGeluLinear(*self._norm_inside(*self._folded(prefix + "fc1", norm), lack_D))
        return GeluLinear(norm, self._linear(prefix + "fc1"), lack_D)

    @property
    def _scales_inside(self) -> bool:
        return scales_inside(torch.empty(0, self._config.embed_dim, dtype=self._dtype, device=self._device))

    def _norm_inside(self, weight: Tensor, bias: Tensor, lack_D: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a `NormInside` is made of; the shift is that of the weight as it is rounded."""
        rounded = weight.to(self._dtype)
        return rounded, bias, lack_D, rounded.float() @ lack_D

    def _folded_qkv(self, prefix: str) -> tuple[Tensor, Tensor]:
        heads, norm = self._config.heads, self.layer_norm(prefix + "self_attn_layer_norm")
        parts = [self._folded(f"{prefix}self_attn.{part}_proj", norm) for part in "qkv"]
        parts[:2] = [(interleave_pairs(weight, heads), interleave_pairs(bias, heads)) for weight, bias in parts[:2]]
        weights, biases = zip(*parts, strict=True)
        return torch.cat(weights), torch.cat(biases)

    def _take_linear(self, prefix: str) -> tuple[Tensor, Tensor]:
        return self._take(prefix + ".weight", torch.float32), self._take(prefix + ".bias", torch.float32)

    def _folded(self, prefix: str, norm: LayerNorm) -> tuple[Tensor, Tensor]:
        return fold_norm(*self._take_linear(prefix), norm.weight, norm.bias)

    def _high_low(self, weight: Tensor, bias: Tensor) -> HighLowLinear:
        return HighLowLinear(
            HighLow.of(weight, self._dtype) if self._low_weights else HighLow(weight.to(self._dtype)), bias
        )

    def layer_norm(self, prefix: str) -> LayerNorm:
        return LayerNorm(self._take(prefix + ".weight", torch.float32), self._take(prefix + ".bias", torch.float32))

    def _linear(self, *prefixes: str) -> Linear:
        weights, biases = (
            [self._take(f"{prefix}.{part}", self._dtype) for prefix in prefixes] for part in ("weight", "bias")
        )
        return Linear(_stack(weights), _stack(biases))

    def _fp8_linear(self, *prefixes: str) -> Fp8Linear:
        linear = self._linear(*prefixes)
        return Fp8Linear(quantise_rows(linear.weight), linear.bias)

    def _rotary(self, index: int) -> RotaryTable:
        """The table of an earlier layer where the frequencies are the same, as they are in every official model."""
        inv_freq_H = self._take(inv_freq_key(index), torch.float32)
        for known, table in self._rotaries:
            if torch.equal(known, inv_freq_H):
                return table
        self._rotaries.append((inv_freq_H, RotaryTable(inv_freq_H)))
        return self._rotaries[-1][1]

    def _take(self, key: str, dtype: torch.dtype) -> Tensor:
        return self._state[key].detach().to(self._device, copy=True).to(dtype)


def _stack(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def inv_freq_key(layer: int) -> str:
    """Canonical state-dict key of a layer's rotary frequencies."""
    return FREQUENCIES.replace("*", str(layer))


def trained_inv_freq(head_dim: int, base: float | None = ESM_2.rotary_base) -> Tensor:
    """(head_dim / 2,) fp32 rotary frequencies as ESM-2 was trained with: RoFormer's formula, rounded to fp16.

    Without a base they are zeros, which turn nothing.
    """
    if base is None:
        return torch.zeros(head_dim // 2)
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    return (1.0 / (base**exponents)).half().float()


def dtype_of(precision: str) -> torch.dtype:
    """The dtype of a precision of the command line; UsageError where this model does not run in it."""
    if precision not in DTYPES:
        raise UsageError(f"precision '{precision}' is not available; choose one of {', '.join(DTYPES)}")
    dtype: torch.dtype = DTYPES[precision]
    return dtype


def precision_of(dtype: torch.dtype) -> str:
    """The precision of a dtype; UsageError where this model does not run in it."""
    for precision, known in DTYPES.items():
        if dtype == known:
            return precision
    raise UsageError(f"a model in {dtype} cannot be repacked; cast it to one of {', '.join(DTYPES)}")
