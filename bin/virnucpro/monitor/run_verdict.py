"""A finished run in words: how fast, where the time went, what to change, and what a million more would cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from virnucpro.monitor.verdict import bottleneck

#: Dense bf16 matrix products of 8192x8192x8192 in TFLOP/s, measured with cuBLAS: what a card does at best.
MATRIX_TERAFLOPS: Final = {"NVIDIA H100 80GB HBM3": 778.0, "NVIDIA H200": 790.0}
#: Share of the devices' time spent computing, below which whatever took most of the rest is the bottleneck.
SOUND_COMPUTE: Final = 0.8

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

Shard = Mapping[str, Any]


def time_spent(shard: Shard) -> dict[str, float]:
    """Seconds of one shard's wall time by what they went into; they add up to the wall time.

    ``startup`` is all before the first batch, ``starved`` the gaps between batches, ``write`` all after the last one.

    Args:
        shard: a row of shards.parquet.
    """
    wall = shard.get("wall_seconds") or 0.0
    startup = min(shard.get("startup_seconds") or 0.0, wall)
    rate = shard.get("tokens_per_second")
    span = min(shard["tokens"] / rate, wall - startup) if rate else 0.0
    compute = min(shard.get("compute_seconds") or 0.0, span)
    return {"startup": startup, "starved": span - compute, "compute": compute, "write": wall - startup - span}


def run_time_spent(shards: Sequence[Shard]) -> dict[str, float]:
    """Seconds of all devices over the whole run, from its first shard's start to its last one's end.

    Besides the parts of ``time_spent``: ``idle``, in which a device had no shard.
    """
    spent = dict.fromkeys(TIME_NAMES, 0.0)
    timed = [shard for shard in shards if shard.get("started") is not None and shard.get("finished") is not None]
    for shard in timed:
        for name, seconds in time_spent(shard).items():
            spent[name] += seconds
    if timed:
        length = max(shard["finished"] for shard in timed) - min(shard["started"] for shard in timed)
        for members in shards_by_device(timed).values():
            windows = [(shard["started"], shard["finished"]) for shard in members]
            spent["idle"] += max(0.0, length - _covered(windows))
    return spent


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
    worked = [shard for shard in shards if shard.get("tokens") and shard.get("tokens_per_second")]
    if not worked:
        return ["Nothing was computed in this run: every record was reused or rejected."]
    spent = run_time_spent(worked)
    lines = [_throughput(worked), _times(spent), _advice(worked, spent)]
    return [*lines, _estimate(worked)]


def _throughput(shards: Sequence[Shard]) -> str:
    seconds = sum(_span(shard) for shard in shards)
    tokens, sequences = _sum(shards, "tokens"), _sum(shards, "sequences")
    devices = _devices(shards)
    each = " on each" if len(shards_by_device(shards)) > 1 else ""
    line = (
        f"{sequences:,.0f} sequences ({tokens:,.0f} tokens) on {devices}: "
        f"{tokens / seconds:,.0f} tokens/s and {sequences / seconds:,.1f} sequences/s{each}"
    )
    names = {shard.get("device_name") for shard in shards}
    flops = [shard["teraflops_per_second"] * _span(shard) for shard in shards if shard.get("teraflops_per_second")]
    if len(flops) < len(shards):
        return f"{line}."
    rate = sum(flops) / seconds
    limit = MATRIX_TERAFLOPS.get(str(next(iter(names)))) if len(names) == 1 else None
    share = (
        f", {100 * rate / limit:.0f} % of the {limit:,.0f} that the card does in plain matrix products" if limit else ""
    )
    return f"{line}, {rate:,.3g} TFLOP/s{share}."


def _times(spent: Mapping[str, float]) -> str:
    total = sum(spent.values()) or 1.0
    shares = ", ".join(f"{WORDS[name]} {100 * spent[name] / total:.0f} %" for name in TIME_NAMES)
    return f"Where the time went: {shares}."


def _advice(shards: Sequence[Shard], spent: Mapping[str, float]) -> str:
    total = sum(spent.values()) or 1.0
    if spent["compute"] < SOUND_COMPUTE * total:
        cause = max((name for name in TIME_NAMES if name != "compute"), key=lambda name: spent[name])
        return f"Bottleneck: {WORDS[cause]}, {100 * spent[cause] / total:.0f} % of the time; {_remedy(cause, shards)}."
    utilization = _weighted(shards, "utilization_percent", "wall_seconds")
    judged = bottleneck([] if utilization is None else [utilization], _weighted(shards, "pct_starved", "batches"))
    prefix = "none: " if judged.severity == "none" else ""
    return f"Bottleneck: {prefix}{judged.verdict}."


def _remedy(cause: str, shards: Sequence[Shard]) -> str:
    if cause == "starved":
        return "give each task more CPUs"
    if cause == "write":
        return "store halves (--embedding_dtype float16), or put the work folder on a faster disk"
    if cause == "idle" and len(shards_by_device(shards)) > 1:
        return "lower --shard_residues, so that all devices end together"
    if len(shards) == 1:
        return "it weighs less with more sequences; nothing to change"
    return "raise --shard_residues, so that fewer tasks have to start"


def million_more(shards: Sequence[Shard]) -> dict[str, float | None]:
    """Device-hours and kWh from first to last batch that a million more sequences like these would take."""
    worked = [shard for shard in shards if shard.get("tokens") and shard.get("tokens_per_second")]
    sequences = _sum(worked, "sequences")
    if not sequences:
        return {"device_hours": None, "kwh": None}
    joules = None
    if all(shard.get("batch_energy_joules") is not None for shard in worked):
        joules = _sum(worked, "batch_energy_joules")
    return {
        "device_hours": sum(_span(shard) for shard in worked) / sequences * 1e6 / 3600,
        "kwh": None if joules is None else joules / sequences * 1e6 / _JOULES_PER_KWH,
    }


def _estimate(shards: Sequence[Shard]) -> str:
    cost = million_more(shards)
    unit = "GPU-hours" if any(shard.get("device_uuid") for shard in shards) else "CPU-hours of this machine"
    energy = "" if cost["kwh"] is None else f" and {cost['kwh']:,.3g} kWh"
    return f"A million more sequences like these: about {cost['device_hours']:,.3g} {unit}{energy}."


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


def _covered(windows: Iterable[tuple[float, float]]) -> float:
    """Seconds covered by at least one window."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(windows):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered
