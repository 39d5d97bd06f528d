"""The sections of the page as MultiQC's custom content: one JSON-able object each."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from virnucpro.monitor.metrics import QUEUE_STATES
from virnucpro.monitor.run_verdict import WORDS, time_spent
from virnucpro.output.schema import STATUSES
from virnucpro.report.device_series import DeviceSeries
from virnucpro.report.page_style import palette_of
from virnucpro.report.tallies import BatchTally, RecordTally, length_edges, length_histogram
from virnucpro.shards import shard_name

Section = dict[str, Any]

#: Shards above which a bar for each is no longer readable, and a line over the shards' numbers takes their place.
MOST_BARS: Final = 60

#: Lines up to which each has an entry in a legend.
_MOST_LEGENDS: Final = 12
#: Points of a line above which MultiQC thins it out: far above what is drawn here.
_SMOOTH_POINTS: Final = 10_000

Lines = Mapping[str, Sequence[tuple[float, float]]]

#: Columns of the general statistics: (column of shards.parquet, title, what it is, unit, decimals, factor, shown).
_GENERAL: Final = (
    ("sequences", "Sequences", "Sequences embedded", "", 0, 1, True),
    ("tokens", "Tokens", "Residues and the two special tokens of each sequence, in millions", " M", 2, 1e-6, True),
    ("wall_seconds", "Wall time", "From the process's start to its end", " s", 1, 1, True),
    ("startup_seconds", "Start-up", "From the process's start to its first batch", " s", 1, 1, True),
    ("tokens_per_second", "Tokens/s", "From the first batch's start to the last one's end", "", 0, 1, True),
    ("teraflops_per_second", "TFLOP/s", "Arithmetic of the model's matrix products", "", 3, 1, True),
    ("matrix_share", "Of the limit", "TFLOP/s over those of plain matrix products", " %", 0, 100, True),
    ("utilization_percent", "Utilisation", "Mean over the time of the batches", " %", 1, 1, True),
    ("mean_power_watts", "Power", "Mean over all readings", " W", 0, 1, True),
    ("energy_joules", "Energy", "From start-up to the last write, in watt hours", " Wh", 2, 1 / 3600, True),
    ("peak_memory_bytes", "Memory", "The most in use, in GiB", " GiB", 1, 2.0**-30, True),
    ("packing_efficiency", "Packing", "Tokens over the token budget, mean of the batches", " %", 1, 100, False),
    ("p95_wait_time_ms", "Wait p95", "95th percentile of the waits for a batch", " ms", 1, 1, False),
    ("pct_starved", "Starved", "Batches that were waited for longer than 50 ms", " %", 1, 1, False),
    (
        "greatest_residue_l2",
        "Residue L2",
        "Greatest of the self-check against fp32, in millionths",
        " ppm",
        1,
        1e6,
        True,
    ),
    ("retries", "Retries", "Batches cut because memory ran out", "", 0, 1, False),
)


def verdict_section(lines: Sequence[str]) -> Section:
    """The verdict in words."""
    return {"id": "verdict", "section_name": "Verdict", "plot_type": "html", "data": list_of(lines)}


def list_of(lines: Sequence[str]) -> str:
    """A list of lines, in which what stands between backticks is code."""
    items = (re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(line)) for line in lines)
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def general_statistics(shards: Sequence[Mapping[str, Any]]) -> Section:
    """One row per shard."""
    headers = {}
    for column, title, description, unit, decimals, _, shown in _GENERAL:
        if any(shard.get(column) is not None for shard in shards):
            headers[column] = {
                "title": title,
                "description": description,
                "suffix": unit,
                "format": f"{{:,.{decimals}f}}",
                "min": 0,
                "hidden": not shown,
                "namespace": "Shards",
            }
    factors = {column: factor for column, *_, factor, _ in _GENERAL}
    rows = {
        shard_name(shard["shard"]): {key: shard[key] * factors[key] for key in headers if shard.get(key) is not None}
        for shard in shards
    }
    return {"id": "shards", "plot_type": "generalstats", "headers": headers, "data": rows}


def device_sections(series: DeviceSeries, on_gpu: bool) -> list[Section]:
    """Utilisation, power and memory over the run's wall clock; power only where it is known."""
    device = "GPU" if on_gpu else "CPU"
    memory = "Memory in use on the whole card" if on_gpu else "Resident memory of the task's processes"
    busy = "Share of the time in which a kernel ran" if on_gpu else "Share of the usable cores that the task kept busy"
    drawn = (
        ("utilization_percent", "utilization", f"{device} utilisation", busy, "%", 100),
        ("power_watts", "power", f"{device} power", "Power drawn by the card", "W", None),
        ("memory_used_bytes", "memory", f"{device} memory", memory, "GiB", None),
    )
    sections = []
    for quantity, name, title, description, unit, top in drawn:
        if series.has(quantity):
            text = f"{description}, all shards on one wall clock."
            lines = series.lines[quantity]
            axis = "Minutes since the first shard began"
            sections.append(line_plot(name, title, text, axis, unit, lines, ymax=top))
    return sections


def throughput_section(shards: Sequence[Mapping[str, Any]]) -> Section | None:
    """Tokens per second of each shard."""
    rates = {s["shard"]: {"tokens/s": s["tokens_per_second"]} for s in shards if s.get("tokens_per_second")}
    return _by_shard("throughput", "Tokens per second", "From the first batch to the last.", "tokens/s", rates)


def time_section(shards: Sequence[Mapping[str, Any]]) -> Section | None:
    """What the seconds of each shard went into."""
    spent = {
        shard["shard"]: {WORDS[name]: seconds for name, seconds in time_spent(shard).items()}
        for shard in shards
        if shard.get("wall_seconds")
    }
    text = "Start-up until the first batch, waiting for batches, computing, and waiting for what is written."
    return _by_shard("time", "Where the time went", text, "seconds", spent)


def wait_sections(tally: BatchTally) -> list[Section]:
    """How long the device waited for the loader."""
    states = {shard: {state: counts[state] for state in QUEUE_STATES} for shard, counts in tally.queue_states.items()}
    text = (
        "Batches by the wait before them: full (below 1 ms), normal, starved (above 50 ms). "
        "The first batch of a shard is start-up and left out."
    )
    waited = {shard: {"seconds waited": milliseconds / 1e3} for shard, milliseconds in tally.waited.items()}
    sections = [
        _by_shard("queue_states", "Loader waits", text, "batches", states),
        _by_shard(
            "waited", "Seconds waited for batches", "All waits of a shard but for its first batch.", "seconds", waited
        ),
    ]
    return [section for section in sections if section is not None]


def packing_section(tally: BatchTally) -> Section | None:
    """How full the batches were."""
    if not tally.packing.any():
        return None
    counts = [(percent + 0.5, int(count)) for percent, count in enumerate(tally.packing)]
    text = "Tokens in a batch over the token budget. The last batch of a shard is seldom full."
    axis = "% of the token budget"
    return line_plot("packing", "Packing efficiency", text, axis, "Batches", {"batches": counts}, xmin=0, xmax=100)


def record_sections(tally: RecordTally) -> list[Section]:
    """What became of the records, why some were rejected, and how long they are."""
    fates = {name: tally.statuses.get(name, 0) for name in STATUSES}
    fates["truncated"] = tally.truncated
    if tally.beyond_trained_length is not None:
        fates["beyond the trained length"] = tally.beyond_trained_length
    bars = {name: {"records": count} for name, count in fates.items()}
    text = (
        "Every record has one vector or one reason. Those truncated, or beyond the length that models are trained on, "
        "are also counted as embedded, duplicate or reused."
    )
    sections = [_bars("records", "Records", text, "Records", bars, sort_samples=False, hide_zero_cats=False)]
    if tally.reasons:
        reasons = {reason: {"records": count} for reason, count in _most_common(tally.reasons)}
        sections.append(_bars("reasons", "Reasons for rejection", "See rejected.tsv.", "Records", reasons))
    if tally.record_lengths.any():
        sections.append(_lengths(tally))
    return sections


def _lengths(tally: RecordTally) -> Section:
    edges = length_edges(tally.record_lengths)
    middles = (edges[:-1] + edges[1:]) / 2
    lines = {
        name: list(zip(middles.tolist(), length_histogram(counts, edges).tolist(), strict=True))
        for name, counts in (("records", tally.record_lengths), ("embedded", tally.embedded_lengths))
    }
    text = f"Before truncation, in bins of {edges[1] - edges[0]} residues; the last bin holds all that is longer."
    return line_plot("lengths", "Sequence lengths", text, "Residues", "Records", lines)


def parameter_section(facts: Mapping[str, object]) -> Section:
    """Versions, the weights' hash and the parameters."""
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(name)}</th><td>{html.escape(_text(value))}</td></tr>"
        for name, value in facts.items()
    )
    return {
        "id": "parameters",
        "section_name": "Versions and parameters",
        "description": "What the vectors depend on. The same facts are in the metadata of every Parquet file.",
        "plot_type": "html",
        "data": f"<div class='vn-table'><table class='table table-sm w-auto'><tbody>{rows}</tbody></table></div>",
    }


def _by_shard(name: str, title: str, text: str, unit: str, values: Mapping[int, Mapping[str, float]]) -> Section | None:
    """Stacked bars, one per shard; with many shards, lines over their numbers."""
    if not values:
        return None
    if len(values) <= MOST_BARS:
        return _bars(name, title, text, unit, {shard_name(shard): dict(values[shard]) for shard in sorted(values)})
    parts = dict.fromkeys(part for counts in values.values() for part in counts)
    lines = {part: [(shard, values[shard].get(part, 0)) for shard in sorted(values)] for part in parts}
    return line_plot(name, title, text, "Shard", unit, lines)


def line_plot(name: str, title: str, text: str, xlab: str, ylab: str, lines: Lines, **options: object) -> Section:
    """Lines of (x, y) points by name."""
    options = {key: value for key, value in options.items() if value is not None}
    pconfig = _plot(name, title, xlab, ylab, ymin=0, style="lines", smooth_points=_SMOOTH_POINTS, **options)
    pconfig |= {"showlegend": 1 < len(lines) <= _MOST_LEGENDS, "colors": palette_of(lines)}
    return {
        "id": name,
        "section_name": title,
        "description": text,
        "plot_type": "linegraph",
        "pconfig": pconfig,
        "data": lines,
    }


def _bars(
    name: str, title: str, text: str, unit: str, bars: Mapping[str, Mapping[str, float]], **options: object
) -> Section:
    parts = dict.fromkeys(part for counts in bars.values() for part in counts)
    return {
        "id": name,
        "section_name": title,
        "description": text,
        "plot_type": "bargraph",
        "categories": {part: {"name": part, "color": colour} for part, colour in palette_of(parts).items()},
        "pconfig": {**_plot(name, title, None, unit), "cpswitch": False, "use_legend": True, **options},
        "data": bars,
    }


def _plot(name: str, title: str, xlab: str | None, ylab: str, **options: object) -> dict[str, Any]:
    axes = {"xlab": xlab} if xlab else {}
    return {"id": f"{name}_plot", "title": title, "ylab": ylab, **axes, **options}


def _most_common(counts: Counter[str], most: int = 20) -> list[tuple[str, int]]:
    common = counts.most_common(most)
    rest = counts.total() - sum(count for _, count in common)
    return [*common, ("other reasons", rest)] if rest else common


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(each) for each in value)
    return "none" if value is None else str(value)
