"""Numbers of twice the bits of a 16-bit type, kept as the sum of two of them."""

from __future__ import annotations

from typing import NamedTuple

import torch


class HighLow(NamedTuple):
    """A tensor and, where it is kept, what rounding took from it, in the same dtype."""

    high: torch.Tensor
    low: torch.Tensor | None = None

    @classmethod
    def of(cls, wide: torch.Tensor, dtype: torch.dtype) -> HighLow:
        """Both parts of a tensor of a wider dtype."""
        high = wide.to(dtype)
        return cls(high, (wide - high.to(wide.dtype)).to(dtype))

    def wide(self) -> torch.Tensor:
        """The sum in fp32, or in fp64 where the parts are."""
        high = self.high.to(torch.promote_types(self.high.dtype, torch.float32))
        return high if self.low is None else high + self.low.to(high.dtype)
