"""What held a run back, in words, and the one setting to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Utilisation in percent below which a bottleneck is critical, and mild.
CRITICAL_BELOW: Final = 50.0
MILD_BELOW: Final = 80.0
#: Percent of waits that starved the device, above which the loader is the cause.
STARVED_ABOVE: Final = 10.0
#: What to do where batches come too late: half of a task's CPUs prepare them.
MORE_LOADERS: Final = "raise `cpus` of EMBED_SHARD (--workers of embed_shard.py)"
#: Share of the wall time spent before the first batch, above which start-up is the cause.
STARTUP_ABOVE: Final = 0.3


@dataclass(frozen=True)
class Bottleneck:
    """The verdict on a run.

    Attributes:
        severity: "none", "mild" (below 80 % utilisation), "critical" (below 50 %), or "unknown".
        utilization_percent: the mean utilisation it rests on.
        cause: "none", "loader", "startup", "batches", on a CPU "cores" in place of that, or "unknown".
        verdict: one sentence with the setting to change.
    """

    severity: str
    utilization_percent: float | None
    cause: str
    verdict: str


def bottleneck(
    utilization: Sequence[float],
    pct_starved: float | None = None,
    startup_share: float | None = None,
    *,
    on_gpu: bool = True,
) -> Bottleneck:
    """Judge a run by its utilisation samples, and name the cause as far as the other figures show it.

    Args:
        utilization: percent, one per sample.
        pct_starved: percent of batches that the device waited for longer than 50 ms.
        startup_share: seconds before the first batch divided by the wall time.
        on_gpu: whether the device is a GPU; a CPU's utilisation is the share of all usable cores.
    """
    if not utilization:
        return Bottleneck("unknown", None, "unknown", "the device's utilisation is not known, so nothing is judged")
    mean = sum(utilization) / len(utilization)
    severity = "critical" if mean < CRITICAL_BELOW else "mild" if mean < MILD_BELOW else "none"
    if severity == "none":
        return Bottleneck(severity, mean, "none", f"the device was busy {mean:.0f} % of the time; nothing to change")
    cause, advice = _cause(pct_starved, startup_share, on_gpu)
    return Bottleneck(severity, mean, cause, f"the device was busy only {mean:.0f} % of the time: {advice}")


def _cause(pct_starved: float | None, startup_share: float | None, on_gpu: bool) -> tuple[str, str]:
    if startup_share is not None and startup_share > STARTUP_ABOVE:
        share = f"{100 * startup_share:.0f} % of it went into start-up"
        return "startup", f"{share}; raise --shard_residues, so that each task has more to do"
    if pct_starved is not None and pct_starved > STARVED_ABOVE:
        return "loader", f"it starved before {pct_starved:.0f} % of its batches; {MORE_LOADERS}"
    if not on_gpu:
        return "cores", "other work held the cores, or the task may use few of them; raise `cpus` of EMBED_SHARD"
    if pct_starved is not None:
        return "batches", "batches were ready, but too small to fill it; raise --token_budget"
    return "unknown", "look at the loader's waits and the batch sizes"
