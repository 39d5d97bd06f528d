"""What the layers of ESM-2 are put together from: norms, projections and the feed-forward block, and where a packed
batch's tokens lie.

Shape letters: T tokens, S sequences, D embed_dim, F ffn_dim, H head_dim, P positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from virnucpro.kernels.fp8_linear import Quantised, add_layer_norm_quantise, fp8_linear, gelu_quantise
from virnucpro.kernels.layer_norm import add_layer_norm, row_scale
from virnucpro.kernels.linear_gelu import linear_gelu
from virnucpro.kernels.rotary import Rotation, rotary_
from virnucpro.kernels.scaled_linear import scaled_linear_gelu, scaled_linear_rotary

LAYER_NORM_EPS: Final = 1e-5


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

    def __call__(
        self,
        x_TD: Tensor,
        delta_TD: Tensor | None = None,
        out_dtype: torch.dtype | None = None,
        lack_D: Tensor | None = None,
    ) -> Tensor:
        """Norm of ``x_TD`` after ``delta_TD``, where there is one, has been added to it in place, and as if it had the
        ``lack_D`` of a `PlainLayer`'s stream."""
        return add_layer_norm(x_TD, delta_TD, self.weight, self.bias, LAYER_NORM_EPS, out_dtype, lack_D)


@dataclass(frozen=True, slots=True)
class Linear:
    """Weight (out, in) and bias (out,) of one projection."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x_TD: Tensor) -> Tensor:
        return functional.linear(x_TD, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class RotaryLinear:
    """Queries, keys and values, one below the other in the weight (3D, D), of normalised rows of a stream; the former
    two rotated."""

    norm: LayerNorm
    linear: Linear
    heads: int
    lack: Tensor

    def __call__(self, x_TD: Tensor, rotation: Rotation) -> Tensor:
        qkv_T3D = self.linear(self.norm(x_TD, lack_D=self.lack))
        rotary_(qkv_T3D, rotation, self.heads)
        return qkv_T3D


@dataclass(frozen=True, slots=True)
class GeluLinear:
    """The first half of the feed-forward block, of normalised rows of a stream."""

    norm: LayerNorm
    linear: Linear
    lack: Tensor

    def __call__(self, x_TD: Tensor) -> Tensor:
        return linear_gelu(self.norm(x_TD, lack_D=self.lack), self.linear.weight, self.linear.bias)


@dataclass(frozen=True, slots=True)
class NormInside:
    """Weight (out, in) and fp32 bias (out,) of one projection that hold the layer norm before it (`fold_norm`).

    Attributes:
        lack: (D,) fp32, what every row of the stream counts as more than it has.
        shift: (out,) fp32, the weight's product with it.
    """

    weight: Tensor
    bias: Tensor
    lack: Tensor
    shift: Tensor

    def arguments(self, x_TD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What the functions of `scaled_linear` take."""
        return x_TD, row_scale(x_TD, self.lack, LAYER_NORM_EPS), self.weight, self.shift, self.bias


class NormInsideRotaryLinear(NormInside):
    """`RotaryLinear` as one product; queries and keys are in `interleave_pairs` order."""

    def __call__(self, x_TD: Tensor, rotation: Rotation) -> Tensor:
        return scaled_linear_rotary(*self.arguments(x_TD), rotation)


class NormInsideGeluLinear(NormInside):
    """`GeluLinear` as one product."""

    def __call__(self, x_TD: Tensor) -> Tensor:
        return scaled_linear_gelu(*self.arguments(x_TD))


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
class Fp8RotaryLinear:
    """`RotaryLinear` with e4m3 operands."""

    linear: Fp8Linear
    heads: int

    def __call__(self, hidden: Quantised, rotation: Rotation) -> Tensor:
        qkv_T3D = self.linear(hidden)
        rotary_(qkv_T3D, rotation, self.heads)
        return qkv_T3D


@dataclass(frozen=True, slots=True)
class Fp8FeedForward:
    """The feed-forward block with e4m3 operands."""

    up: Fp8Linear
    down: Fp8Linear

    def __call__(self, hidden: Quantised) -> Tensor:
        return self.down(gelu_quantise(self.up(hidden)))
