"""A finished run in words: how fast, where the time went, what to change, and what a million more would cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from virnucpro.monitor.verdict import CRITICAL_BELOW, MILD_BELOW, MORE_LOADERS, Bottleneck, bottleneck

#: Shares of the devices' time spent computing, below which whatever took most of the rest is the bottleneck, and
#: below which that is critical.
SOUND_COMPUTE: Final = MILD_BELOW / 100
CRITICAL_COMPUTE: Final = CRITICAL_BELOW / 100

_JOULES_PER_KWH: Final = 3.6e6

#: What the devices' time goes into, and how to say it.
WORDS: Final = {
    "startup": "start-up",
    "starved": "waiting for batches",
    "compute": "computing",
    "write": "writing",
    "idle": "idle between shards",
}
TIME_NAMES: Final = tuple(WORDS)

#: Outcomes of the self-check, and how to say of how many shards each is.
_SELF_CHECK: Final = {
    "met": "within the published bounds",
    "missed": "beyond the published bounds by what rounding explains",
    "plain": "by PyTorch's operations alone, as kernels were beyond the bounds,",
    "unmeasured": "not measured, as no vector was finite,",
    "off": "not checked",
}

Shard = Mapping[str, Any]


def time_spent(shard: Shard) -> dict[str, float]:
    """Seconds of one shard's wall time by what they went into; they add up to the wall time.

    Args:
        shard: a row of shards.parquet; parts that are not known count as 0.
    """
    return {name: shard.get(f"{name}_seconds") or 0.0 for name in TIME_NAMES if name != "idle"}


def run_time_spent(shards: Sequence[Shard]) -> dict[str, float]:
    """Seconds of all devices over the whole run, from its first shard's start to its last one's end.

    Besides the parts of ``time_spent``: ``idle``, in which a device had no shard. All parts together are the run's
    length times the number of devices.
    """
    spent = dict.fromkeys(TIME_NAMES, 0.0)
    timed = timed_shards(shards)
    for shard in timed:
        for name, seconds in time_spent(shard).items():
            spent[name] += seconds
    if timed:
        length = max(shard["finished"] for shard in timed) - min(shard["started"] for shard in timed)
        for members in shards_by_device(timed).values():
            windows = [(shard["started"], shard["finished"]) for shard in members]
            spent["idle"] += max(0.0, length - sum(end - begin for begin, end in covered(windows)))
    return spent


def timed_shards(shards: Iterable[Shard]) -> list[Shard]:
    """Those of which is known when they began and finished."""
    return [shard for shard in shards if shard.get("started") is not None and shard.get("finished") is not None]


def covered(windows: Iterable[tuple[float, float]], gap: float = 0.0) -> list[tuple[float, float]]:
    """Stretches covered by the windows, each (begin, end); those no farther apart than ``gap`` are one."""
    stretches: list[tuple[float, float]] = []
    for begin, end in sorted(windows):
        if stretches and begin - stretches[-1][1] <= gap:
            stretches[-1] = (stretches[-1][0], max(stretches[-1][1], end))
        else:
            # A clock that was set back may end a shard before its start.
            stretches.append((begin, max(begin, end)))
    return stretches


def shards_by_device(shards: Iterable[Shard]) -> dict[tuple[Any, Any], list[Shard]]:
    """Shards by the host and UUID of the device they ran on; a CPU is its host's one device."""
    devices: dict[tuple[Any, Any], list[Shard]] = {}
    for shard in shards:
        devices.setdefault((shard.get("host"), shard.get("device_uuid")), []).append(shard)
    return devices


def run_verdict(shards: Sequence[Shard]) -> list[str]:
    """A few plain lines on a run.

    Args:
        shards: the rows of shards.parquet; values that are not known are None or missing.
    """
    worked = _worked(shards)
    if not worked:
        return ["Nothing was computed in this run: every record was reused or rejected."]
    spent = run_time_spent(worked)
    lines = [_throughput(worked), _times(spent), f"Bottleneck: {run_bottleneck(shards).verdict}.", _estimate(worked)]
    return lines + _self_check(worked)


def run_bottleneck(shards: Sequence[Shard]) -> Bottleneck:
    """What held the run back: the largest part of the time that was no computing, or else how that was done.

    Its cause is one of ``TIME_NAMES``, or one of those that ``bottleneck`` gives.
    """
    worked = _worked(shards)
    spent = run_time_spent(worked)
    total = sum(spent.values())
    utilization = _weighted(worked, "utilization_percent", "compute_seconds")
    if total and spent["compute"] < SOUND_COMPUTE * total:
        cause = max((name for name in TIME_NAMES if name != "compute"), key=lambda name: spent[name])
        severity = "critical" if spent["compute"] < CRITICAL_COMPUTE * total else "mild"
        verdict = f"{WORDS[cause]}, {100 * spent[cause] / total:.0f} % of the time; {_remedy(cause, worked)}"
        return Bottleneck(severity, utilization, cause, verdict)
    known, starved = [] if utilization is None else [utilization], _weighted(worked, "pct_starved", "batches")
    judged = bottleneck(known, starved, on_gpu=_on_gpu(worked))
    return replace(judged, verdict=f"none: {judged.verdict}") if judged.severity == "none" else judged


def matrix_limit(shards: Sequence[Shard]) -> float | None:
    """TFLOP/s of plain matrix products, mean over the shards by computing time; None unless every shard knows it."""
    worked = _worked(shards)
    if any(shard.get("matrix_teraflops_per_second") is None for shard in worked):
        return None
    return _weighted(worked, "matrix_teraflops_per_second", "compute_seconds")


def _worked(shards: Sequence[Shard]) -> list[Shard]:
    return [shard for shard in shards if shard.get("tokens") and shard.get("tokens_per_second")]


def _throughput(shards: Sequence[Shard]) -> str:
    seconds = sum(_span(shard) for shard in shards)
    tokens, sequences = _sum(shards, "tokens"), _sum(shards, "sequences")
    devices = _devices(shards)
    each = " on each" if len(shards_by_device(shards)) > 1 else ""
    line = (
        f"{sequences:,.0f} sequences ({tokens:,.0f} tokens) on {devices}: "
        f"{tokens / seconds:,.0f} tokens/s and {sequences / seconds:,.1f} sequences/s{each}"
    )
    if any(shard.get("teraflops_per_second") is None for shard in shards):
        return f"{line}."
    rate = sum(shard["teraflops_per_second"] * _span(shard) for shard in shards) / seconds
    if not rate:
        return f"{line}; the embedding layer alone takes no matrix products."
    limit = matrix_limit(shards)
    if limit is None:
        return f"{line}, {rate:,.3g} TFLOP/s."
    share = f"{100 * rate / limit:.0f} % of the {limit:,.0f} that it reached in plain matrix products"
    return f"{line}, {rate:,.3g} TFLOP/s, {share}."


def _times(spent: Mapping[str, float]) -> str:
    total = sum(spent.values()) or 1.0
    shares = ", ".join(f"{WORDS[name]} {100 * spent[name] / total:.0f} %" for name in TIME_NAMES)
    return f"Where the time went: {shares}."


def _remedy(cause: str, shards: Sequence[Shard]) -> str:
    if cause == "starved":
        return MORE_LOADERS
    if cause == "write":
        return "store halves (--embedding_dtype float16), or put the work folder on a faster disk"
    if cause == "idle" and len(shards_by_device(shards)) > 1:
        return "lower --shard_residues, so that all devices end together"
    if len(shards) == 1:
        return "it weighs less with more sequences; nothing to change"
    return "raise --shard_residues, so that fewer tasks have to start"


def million_more(shards: Sequence[Shard]) -> dict[str, float | None]:
    """Device-hours and kWh that a million more sequences like these would take: all that was spent but start-up."""
    worked = _worked(shards)
    sequences = _sum(worked, "sequences")
    if not sequences:
        return {"device_hours": None, "kwh": None}
    seconds = sum(sum(time_spent(shard).values()) for shard in worked) - _sum(worked, "startup_seconds")
    joules = None
    if all(shard.get("energy_joules") is not None for shard in worked):
        joules = _sum(worked, "energy_joules") - _sum(worked, "startup_energy_joules")
    return {
        "device_hours": seconds / sequences * 1e6 / 3600,
        "kwh": None if joules is None else joules / sequences * 1e6 / _JOULES_PER_KWH,
    }


def _estimate(shards: Sequence[Shard]) -> str:
    cost = million_more(shards)
    unit = "GPU-hours" if _on_gpu(shards) else "CPU-hours of this machine"
    energy = "" if cost["kwh"] is None else f" and {cost['kwh']:,.3g} kWh"
    return f"A million more sequences like these: about {cost['device_hours']:,.3g} {unit}{energy}."


def _self_check(shards: Sequence[Shard]) -> list[str]:
    """What the tasks found of their own parity; nothing where none looked, or of results before there was a check."""
    outcomes = Counter(shard.get("self_check") or "off" for shard in shards)
    checked = [shard for shard in shards if shard.get("greatest_residue_l2") is not None]
    if not checked:
        return []
    residue = max(shard["greatest_residue_l2"] for shard in checked)
    cosine = math.floor(1e7 * min(shard["least_pooled_cosine"] for shard in checked)) / 1e7
    line = f"Self-check against fp32: greatest residue L2 {residue:.1e}, least pooled cosine {cosine:.7f}"
    told = [f"{_SELF_CHECK[name]} in {outcomes[name]:,} of {len(shards):,}" for name in _SELF_CHECK if outcomes[name]]
    if outcomes["met"] == len(shards):
        told = ["within the published bounds"]
    return [f"{line}; {', '.join(told)}."]


def _on_gpu(shards: Iterable[Shard]) -> bool:
    return any(shard.get("device_uuid") for shard in shards)


def _devices(shards: Sequence[Shard]) -> str:
    names = [str(members[0].get("device_name")) for members in shards_by_device(shards).values()]
    counted = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counted.items())


def _span(shard: Shard) -> float:
    """Seconds from the first batch's start to the last one's end."""
    return float(shard["tokens"] / shard["tokens_per_second"])


def _sum(shards: Iterable[Shard], key: str) -> float:
    return float(sum(shard.get(key) or 0 for shard in shards))


def _weighted(shards: Sequence[Shard], key: str, weight: str) -> float | None:
    known = [shard for shard in shards if shard.get(key) is not None and shard.get(weight)]
    total = _sum(known, weight)
    return sum(shard[key] * shard[weight] for shard in known) / total if total else None
