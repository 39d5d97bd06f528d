"""One layer of ESM-2 over packed tokens, in two forms: as published, its large products in the model's precision or in
e4m3, and with every norm inside the product after it.

A layer adds to the residual stream in place. What it leaves pending is handed to the next layer: the plain form leaves
the feed-forward output, which the next norm adds on its way; the fused form leaves the sums of the stream's rows.

Shape letters: T tokens, S sequences, D embed_dim, F ffn_dim, H head_dim, P positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from virnucpro.kernels import fused_fp8
from virnucpro.kernels.attention import varlen_attention
from virnucpro.kernels.fp8_linear import Quantised, add_layer_norm_quantise, fp8_linear, gelu_quantise
from virnucpro.kernels.fused_linear import (
    chunks_of,
    linear_residual_,
    norm_linear_gelu,
    norm_linear_rotary,
    row_statistics,
)
from virnucpro.kernels.high_low import HighLow
from virnucpro.kernels.layer_norm import add_layer_norm
from virnucpro.kernels.linear_gelu import linear_gelu
from virnucpro.kernels.rotary import Rotation, rotary_

LAYER_NORM_EPS: Final = 1e-5

Hidden = TypeVar("Hidden", Tensor, Quantised)


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the sequences of a packed batch lie: offsets (S+1,) int32, positions (T,) int32, longest sequence."""

    cu_seqlens: Tensor
    positions: Tensor
    max_seqlen: int


class RotaryTable:
    """Cosines and sines of rotary position embedding (Su et al., RoFormer), in fp32, grown on demand.

    Args:
        inv_freq_H: (head_dim / 2,) inverse frequencies as the checkpoint holds them. ESM-2 was trained with values
            rounded to fp16; recomputing them in fp32 turns position 1,000 by 0.16 rad.
    """

    def __init__(self, inv_freq_H: Tensor) -> None:
        self._inv_freq_H = inv_freq_H.float()
        self._cos_PH = self._sin_PH = torch.empty(0, inv_freq_H.numel(), device=inv_freq_H.device)

    def up_to(self, positions: int) -> tuple[Tensor, Tensor]:
        """(P, head_dim / 2) cosines and sines for P >= ``positions``, counted from 0 at <cls>."""
        if positions > self._cos_PH.shape[0]:
            size = max(1024, 1 << (positions - 1).bit_length())
            device = self._inv_freq_H.device
            # Apple's GPU has no fp64.
            inv_freq_H = self._inv_freq_H.cpu() if device.type == "mps" else self._inv_freq_H
            steps_P = torch.arange(size, dtype=torch.float32, device=inv_freq_H.device)
            # fp32 angles as in the reference; fp64 functions, so that no entry depends on the table's size.
            angles_PH = torch.outer(steps_P, inv_freq_H).double()
            self._cos_PH, self._sin_PH = (table.float().to(device) for table in (angles_PH.cos(), angles_PH.sin()))
        return self._cos_PH, self._sin_PH

    def of(self, packing: Packing) -> Rotation:
        """What turns the queries and keys of a packed batch."""
        return Rotation(packing.positions, *self.up_to(packing.max_seqlen))


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Scale and shift of one layer norm, both (D,) and always fp32."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x_TD: Tensor, delta_TD: Tensor | None, out_dtype: torch.dtype | None = None) -> Tensor:
        """Norm of ``x_TD`` after ``delta_TD``, where there is one, has been added to it in place."""
        return add_layer_norm(x_TD, delta_TD, self.weight, self.bias, eps=LAYER_NORM_EPS, out_dtype=out_dtype)


@dataclass(frozen=True, slots=True)
class Linear:
    """Weight (out, in) and bias (out,) of one projection."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x_TD: Tensor) -> Tensor:
        return functional.linear(x_TD, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The feed-forward block on normalised rows."""

    up: Linear
    down: Linear

    def __call__(self, hidden_TD: Tensor) -> Tensor:
        return self.down(linear_gelu(hidden_TD, self.up.weight, self.up.bias))


@dataclass(frozen=True, slots=True)
class Fp8LayerNorm:
    """A layer norm whose result is quantised row by row for an e4m3 product."""

    norm: LayerNorm

    def __call__(self, x_TD: Tensor, delta_TD: Tensor | None) -> Quantised:
        return add_layer_norm_quantise(x_TD, delta_TD, self.norm.weight, self.norm.bias, LAYER_NORM_EPS)


@dataclass(frozen=True, slots=True)
class Fp8Linear:
    """Weight (out, in) in e4m3 with one scale an output, and bf16 bias (out,)."""

    weight: Quantised
    bias: Tensor

    def __call__(self, x: Quantised) -> Tensor:
        return fp8_linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class Fp8FeedForward:
    """The feed-forward block with e4m3 operands."""

    up: Fp8Linear
    down: Fp8Linear

    def __call__(self, hidden: Quantised) -> Tensor:
        return self.down(gelu_quantise(self.up(hidden)))


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

    def settle(self, stream: Stream) -> Stream:
        """Make the stream's tensor the layer's whole output."""

    def finish(self, stream: Stream, norm: LayerNorm) -> Tensor:
        """(T, D) fp32, the final norm of the last layer's output; the stream is used up."""


@dataclass(frozen=True, slots=True)
class PlainLayer(Generic[Hidden]):
    """One pre-norm transformer layer; ``qkv`` holds query, key and value one below the other, (3D, D).

    ``Hidden`` is what the norms hand to the products after them: rows in the model's precision, or quantised ones.
    """

    heads: int
    attention_norm: Callable[[Tensor, Tensor | None], Hidden]
    qkv: Callable[[Hidden], Tensor]
    out: Linear
    ffn_norm: Callable[[Tensor, Tensor | None], Hidden]
    feed_forward: Callable[[Hidden], Tensor]
    rotary: RotaryTable

    def begin(self, embedded_TD: Tensor) -> Stream:
        return Stream(HighLow(embedded_TD), None)

    def __call__(self, stream: Stream, packing: Packing) -> Stream:
        x_TD = stream.x.high
        qkv_T3D = self.qkv(self.attention_norm(x_TD, stream.pending))
        rotary_(qkv_T3D, self.rotary.of(packing), self.heads)
        scale = (x_TD.shape[1] // self.heads) ** -0.5
        attended_TD = varlen_attention(qkv_T3D, packing.cu_seqlens, packing.max_seqlen, self.heads, scale)
        return Stream(stream.x, self.feed_forward(self.ffn_norm(x_TD, self.out(attended_TD))))

    def settle(self, stream: Stream) -> Stream:
        assert stream.pending is not None
        stream.x.high.add_(stream.pending)
        return Stream(stream.x, None)

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
        scale = (x_TD.high.shape[1] // self.heads) ** -0.5
        attended_TD = varlen_attention(qkv_T3D, packing.cu_seqlens, packing.max_seqlen, self.heads, scale, low_T2D)
        statistics = linear_residual_(x_TD, attended_TD, self.out.weight, self.out.bias)
        hidden_TF = norm_linear_gelu(x_TD, statistics, self.up.weight, self.up.bias, LAYER_NORM_EPS)
        return Stream(x_TD, linear_residual_(x_TD, hidden_TF, self.down.weight, self.down.bias))

    def settle(self, stream: Stream) -> Stream:
        return stream

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
        scale = (x_TD.shape[1] // self.heads) ** -0.5
        attended_TD = varlen_attention(qkv_T3D, packing.cu_seqlens, packing.max_seqlen, self.heads, scale)
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

    def settle(self, stream: Stream) -> Stream:
        return stream

    def finish(self, stream: Stream, norm: LayerNorm) -> Tensor:
        return norm(stream.x.high, None, torch.float32)
