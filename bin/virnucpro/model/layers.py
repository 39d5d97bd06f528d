"""One layer of ESM-2 over packed tokens, in two forms, each with its large products in the model's precision or in
e4m3: plain, for any device, and fused, of Hopper's own products, with every norm inside the product after it.

A layer adds to the residual stream in place. What it leaves pending is handed to the next layer: the plain form in
e4m3 leaves the feed-forward output, which the next norm adds on its way; the fused forms leave the sums of the stream's
rows.

Shape letters: T tokens, S sequences, D embed_dim, F ffn_dim, H head_dim, P positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from virnucpro.kernels import fused_fp8
from virnucpro.kernels.attention import varlen_attention
from virnucpro.kernels.fp8_linear import Quantised
from virnucpro.kernels.fused_linear import (
    chunks_of,
    linear_residual_,
    norm_linear_gelu,
    norm_linear_rotary,
    row_statistics,
)
from virnucpro.kernels.high_low import HighLow
from virnucpro.kernels.rotary import Rotation
from virnucpro.model.projections import (
    LAYER_NORM_EPS,
    Fp8FeedForward,
    Fp8LayerNorm,
    Fp8Linear,
    Fp8RotaryLinear,
    LayerNorm,
    Linear,
    Packing,
    RotaryTable,
)


class Stream(NamedTuple):
    """The residual stream (T, D) between two layers, and what the layer's form leaves pending on it."""

    x: HighLow
    pending: Tensor | None
    copy: Quantised | None = None


class EncoderLayer(Protocol):
    """What the encoder asks of a layer, whatever its form."""

    def begin(self, embedded_TD: Tensor) -> Stream:
        """The stream that no layer has touched; it may share memory with its argument."""

    def __call__(self, stream: Stream, packing: Packing) -> Stream:
        """Add the layer's output to the stream in place, but for what is then pending."""

    def output(self, stream: Stream) -> Tensor:
        """(T, D) the layer's whole output in the model's precision, in memory of its own."""

    def finish(self, stream: Stream, norm: LayerNorm) -> Tensor:
        """(T, D) fp32, the final norm of the last layer's output; the stream is used up."""


def _attended(qkv_T3D: Tensor, packing: Packing, heads: int, low_T2D: Tensor | None = None) -> Tensor:
    """(T, D) attention of each sequence on itself, its logits divided by the root of the head dimension."""
    scale = (qkv_T3D.shape[1] // (3 * heads)) ** -0.5
    return varlen_attention(qkv_T3D, packing.cu_seqlens, packing.max_seqlen, heads, scale, low_T2D)


@dataclass(frozen=True, slots=True)
class PlainLayer:
    """One pre-norm transformer layer.

    ``qkv`` and ``up`` hold the norms before them. ``out`` and ``down`` are weights alone, whose products are added to
    the stream as they are written: as PyTorch has no such product with a bias, the stream lacks the biases of all
    layers so far, and whatever reads it adds their sum.

    Attributes:
        lack: (D,) fp32, what every row of the stream lacks after the layer.
    """

    heads: int
    qkv: Callable[[Tensor, Rotation], Tensor]
    out: Tensor
    up: Callable[[Tensor], Tensor]
    down: Tensor
    rotary: RotaryTable
    lack: Tensor

    def begin(self, embedded_TD: Tensor) -> Stream:
        return Stream(HighLow(embedded_TD), None)

    def __call__(self, stream: Stream, packing: Packing) -> Stream:
        x_TD = stream.x.high
        qkv_T3D = self.qkv(x_TD, self.rotary.of(packing))
        attended_TD = _attended(qkv_T3D, packing, self.heads)
        x_TD.addmm_(attended_TD, self.out.T)
        x_TD.addmm_(self.up(x_TD), self.down.T)
        return stream

    def output(self, stream: Stream) -> Tensor:
        return (stream.x.high + self.lack).to(stream.x.high.dtype)

    def finish(self, stream: Stream, norm: LayerNorm) -> Tensor:
        return norm(stream.x.high, None, torch.float32, self.lack)


@dataclass(frozen=True, slots=True)
class Fp8PlainLayer:
    """`PlainLayer` with e4m3 operands in all products but attention's and the one after it."""

    heads: int
    attention_norm: Fp8LayerNorm
    qkv: Fp8RotaryLinear
    out: Linear
    ffn_norm: Fp8LayerNorm
    feed_forward: Fp8FeedForward
    rotary: RotaryTable

    def begin(self, embedded_TD: Tensor) -> Stream:
        return Stream(HighLow(embedded_TD), None)

    def __call__(self, stream: Stream, packing: Packing) -> Stream:
        x_TD = stream.x.high
        qkv_T3D = self.qkv(self.attention_norm(x_TD, stream.pending), self.rotary.of(packing))
        attended_TD = _attended(qkv_T3D, packing, self.heads)
        return Stream(stream.x, self.feed_forward(self.ffn_norm(x_TD, self.out(attended_TD))))

    def output(self, stream: Stream) -> Tensor:
        assert stream.pending is not None
        return stream.x.high + stream.pending

    def finish(self, stream: Stream, norm: LayerNorm) -> Tensor:
        return norm(stream.x.high, stream.pending, torch.float32)


@dataclass(frozen=True, slots=True)
class HighLowLinear:
    """Weight (out, in), with a low part where it is kept, and fp32 bias (out,) of one projection."""

    weight: HighLow
    bias: Tensor


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """The same layer as three fused products around attention, for weights prepared by ``ParameterBuilder``.

    ``qkv`` and ``up`` hold the layer norms before them (`fold_norm`); queries and keys are in `interleave_pairs` order.
    With ``low_queries`` queries and keys carry twice the bits of ``dtype``, with ``low_stream`` the residual stream.
    """

    dtype: torch.dtype
    heads: int
    qkv: HighLowLinear
    out: HighLowLinear
    up: HighLowLinear
    down: HighLowLinear
    rotary: RotaryTable
    low_queries: bool
    low_stream: bool

    def begin(self, embedded_TD: Tensor) -> Stream:
        x_TD = HighLow.of(embedded_TD, self.dtype) if self.low_stream else HighLow(embedded_TD.to(self.dtype))
        return Stream(x_TD, row_statistics(embedded_TD, chunks_of(embedded_TD.shape[1], low=self.low_stream)))

    def __call__(self, stream: Stream, packing: Packing) -> Stream:
        x_TD, statistics = stream.x, stream.pending
        assert statistics is not None
        rotation = self.rotary.of(packing)
        qkv_T3D, low_T2D = norm_linear_rotary(
            x_TD, statistics, self.qkv.weight, self.qkv.bias, rotation, LAYER_NORM_EPS, low_parts=self.low_queries
        )
        attended_TD = _attended(qkv_T3D, packing, self.heads, low_T2D)
        statistics = linear_residual_(x_TD, attended_TD, self.out.weight, self.out.bias)
        hidden_TF = norm_linear_gelu(x_TD, statistics, self.up.weight, self.up.bias, LAYER_NORM_EPS)
        return Stream(x_TD, linear_residual_(x_TD, hidden_TF, self.down.weight, self.down.bias))

    def output(self, stream: Stream) -> Tensor:
        return stream.x.high.clone()

    def finish(self, stream: Stream, norm: LayerNorm) -> Tensor:
        return norm(stream.x.high, stream.x.low, torch.float32)


@dataclass(frozen=True, slots=True)
class Fp8FusedLayer:
    """`FusedLayer` with e4m3 operands in all products but attention's and the one after it; the stream is bf16.

    ``hidden_factor`` is what the feed-forward activation is multiplied by; ``down`` has it taken out of its scales.
    """

    heads: int
    qkv: Fp8Linear
    out: Linear
    up: Fp8Linear
    down: Fp8Linear
    hidden_factor: float
    rotary: RotaryTable

    def begin(self, embedded_TD: Tensor) -> Stream:
        statistics = row_statistics(embedded_TD, chunks_of(embedded_TD.shape[1]))
        return Stream(HighLow(embedded_TD), statistics, fused_fp8.quantise_stream(embedded_TD, statistics))

    def __call__(self, stream: Stream, packing: Packing) -> Stream:
        (x_TD, _), earlier, copy = stream
        assert earlier is not None
        assert copy is not None
        rotation = self.rotary.of(packing)
        qkv_T3D = fused_fp8.fp8_norm_linear_rotary(
            copy, earlier, self.qkv.weight, self.qkv.bias, rotation, LAYER_NORM_EPS
        )
        attended_TD = _attended(qkv_T3D, packing, self.heads)
        middle = fused_fp8.fp8_linear_residual_(
            x_TD, copy, earlier, attended_TD, self.out.weight, None, self.out.bias, LAYER_NORM_EPS
        )
        hidden_TF = fused_fp8.fp8_norm_linear_gelu(
            copy, middle, self.up.weight, self.up.bias, self.hidden_factor, LAYER_NORM_EPS
        )
        later = fused_fp8.fp8_linear_residual_(
            x_TD, copy, middle, hidden_TF, *self.down.weight, self.down.bias, LAYER_NORM_EPS
        )
        return Stream(stream.x, later, copy)

    def output(self, stream: Stream) -> Tensor:
        return stream.x.high.clone()

    def finish(self, stream: Stream, norm: LayerNorm) -> Tensor:
        return norm(stream.x.high, None, torch.float32)
