"""Joins the samples of a device to windows of time: energy, and mean utilisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from virnucpro.monitor.probes import Sample

FloatArray = npt.NDArray[np.float64]

#: A window farther than this from every reading is unknown: the device was lost, or sampling had not begun.
REACH_SECONDS: Final = 1.0


def exclusive_windows(starts: Sequence[float], ends: Sequence[float]) -> tuple[FloatArray, FloatArray]:
    """Cut overlapping windows (batches in flight together) so that no instant counts twice.

    In order of their ends, each window begins no earlier than the one before it ended.
    """
    begin, end = np.array(starts, np.float64), np.array(ends, np.float64)
    order = np.argsort(end, kind="stable")
    previous = np.concatenate([[-np.inf], np.maximum.accumulate(end[order])[:-1]])
    begin[order] = np.minimum(np.maximum(begin[order], previous), end[order])
    return begin, end


class Series:
    """One quantity over time, from the samples in which it is known.

    Args:
        times: unix seconds, ascending.
        values: the quantity at those times.
    """

    def __init__(self, times: Sequence[float], values: Sequence[float]) -> None:
        self.times = np.array(times, np.float64)
        self.values = np.array(values, np.float64)
        steps = np.diff(self.times) * (self.values[1:] + self.values[:-1]) / 2
        self._cumulative = np.concatenate([[0.0], np.cumsum(steps)])

    @classmethod
    def of(cls, samples: Sequence[Sample], quantity: str) -> Series:
        """The samples' attribute ``quantity``, where it is known."""
        known = [(s.time, getattr(s, quantity)) for s in samples if getattr(s, quantity) is not None]
        return cls([time for time, _ in known], [value for _, value in known])

    def integral(self, starts: FloatArray, ends: FloatArray) -> FloatArray:
        """Integral over each window by the trapezoid rule, values at the edges interpolated; NaN where unknown."""
        if not len(self.times):
            return np.full(len(starts), np.nan)
        return np.where(self._known(starts, ends), self._until(ends) - self._until(starts), np.nan)

    def difference(self, starts: FloatArray, ends: FloatArray) -> FloatArray:
        """Growth over each window of a quantity that only grows, interpolated between readings; NaN where unknown."""
        grown = np.interp(ends, self.times, self.values) - np.interp(starts, self.times, self.values)
        return np.where(self._known(starts, ends), grown, np.nan)

    def mean(self, starts: FloatArray, ends: FloatArray) -> FloatArray:
        """Mean of the readings in each window; between readings the interpolated value; NaN where unknown."""
        if not len(self.times):
            return np.full(len(starts), np.nan)
        first, last = np.searchsorted(self.times, starts), np.searchsorted(self.times, ends, "right")
        sums = np.concatenate([[0.0], np.cumsum(self.values)])
        count = last - first
        inside = (sums[last] - sums[first]) / np.maximum(count, 1)
        between = np.interp((starts + ends) / 2, self.times, self.values)
        return np.where(self._known(starts, ends), np.where(count > 0, inside, between), np.nan)

    def _until(self, moments: FloatArray) -> FloatArray:
        index = np.clip(np.searchsorted(self.times, moments, "right") - 1, 0, None)
        value = np.interp(moments, self.times, self.values)
        return self._cumulative[index] + (moments - self.times[index]) * (self.values[index] + value) / 2

    def _known(self, starts: FloatArray, ends: FloatArray) -> npt.NDArray[np.bool_]:
        first = np.searchsorted(self.times, starts - REACH_SECONDS)
        last = np.searchsorted(self.times, ends + REACH_SECONDS, "right")
        return last > first


class Energy:
    """Energy over time: by the card's own counter where it has one to the end, else by integrating power.

    Attributes:
        source: "counter", "integrated", or None where neither is known.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._counter = Series.of(samples, "energy_counter_joules")
        self._power = Series.of(samples, "power_watts")
        counted = len(self._counter.times) > 1 and samples[-1].energy_counter_joules is not None
        self.source: str | None = None
        if counted and (np.diff(self._counter.values) >= 0).all():
            self.source = "counter"
        elif len(self._power.times) > 1:
            self.source = "integrated"

    def between(self, starts: FloatArray, ends: FloatArray) -> FloatArray:
        """Joules of each window; NaN where unknown."""
        if self.source == "counter":
            return self._counter.difference(starts, ends)
        return self._power.integral(starts, ends)

    def total(self) -> float | None:
        """Joules from the first reading to the last; None where unknown, as of readings out of order."""
        if self.source is None:
            return None
        times = (self._counter if self.source == "counter" else self._power).times
        joules = float(self.between(times[:1], times[-1:])[0])
        return joules if joules >= 0 else None
