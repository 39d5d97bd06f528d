"""The run's time as a section of the page: one bar a step, and what it cost."""

from __future__ import annotations

import html
from typing import Final

from virnucpro.report.run_time import FAILED, STARTUP, WORK, RunCost, RunTime, Span, Step
from virnucpro.report.sections import Section, list_of

#: What the reader pays is not known here: the page multiplies, and sends nothing anywhere.
_PRICES: Final = """
<p class="vn-choice">HOUR_INPUT ENERGY_INPUT <output id="run-price"></output></p>
<script>
document.addEventListener("DOMContentLoaded", () => {
  const inputs = Array.from(document.querySelectorAll("input[data-amount]"));
  const output = document.getElementById("run-price");
  const tell = () => {
    const given = inputs.filter((input) => input.value !== "");
    const price = given.reduce((sum, input) => sum + input.value * input.dataset.amount, 0);
    output.textContent = given.length ? `this run: ${price.toLocaleString("en", {maximumSignificantDigits: 3})}` : "";
  };
  inputs.forEach((input) => input.addEventListener("input", tell));
});
</script>
"""
_KINDS: Final = {STARTUP: "start-up, until a shard's first batch", WORK: "at work", FAILED: "failed"}


def run_time_section(time: RunTime | None, cost: RunCost | None) -> Section | None:
    """Bars of the steps, and hours and energy; None where nothing is known of the time."""
    if time is None:
        return None
    bars = "".join(_bar(step, time.seconds) for step in time.steps)
    more = f"<p>{time.more_devices:,} more devices are not drawn.</p>" if time.more_devices else ""
    axis = "".join(f"<span>{in_words(time.seconds * part)}</span>" for part in (0.0, 0.5, 1.0))
    data = f"{_legend(time)}<div class='vn-steps'>{bars}<div class='vn-axis'>{axis}</div></div>{more}"
    return {
        "id": "run_time",
        "section_name": "The run's time and cost",
        "description": " ".join(_words(time)),
        "plot_type": "html",
        "data": data + (_cost(cost) if cost is not None else ""),
    }


def in_words(seconds: float) -> str:
    """'0.4 s', '93 s', '12 min 5 s' or '3 h 12 min'."""
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def _words(time: RunTime) -> list[str]:
    if time.traced:
        told = [
            f"{in_words(time.seconds)} from the first task to the last, by Nextflow's trace and the shards' clocks."
        ]
    else:
        told = [
            f"{in_words(time.seconds)} from the first shard's start to the last one's end. The page of a run is drawn "
            "before its end, so the other steps are not here: their times are in <code>pipeline_info/trace.txt</code>, "
            "and <code>bin/report.py</code> draws them once the run is over."
        ]
    if time.paused > 0:
        told.append(f"{in_words(time.paused)} in which nothing ran are left out.")
    return told


def _bar(step: Step, seconds: float) -> str:
    spans = "".join(_span(span, seconds) for span in step.spans)
    tasks = f", {step.tasks:,} tasks" if step.tasks > 1 else ""
    return (
        f"<div class='vn-step'><span>{html.escape(step.name)}</span><div class='vn-track'>{spans}</div>"
        f"<span>{in_words(step.seconds)}{tasks}</span></div>"
    )


def _span(span: Span, seconds: float) -> str:
    begin, width = (100 * value / max(seconds, 1e-9) for value in (span.begin, span.end - span.begin))
    told = f"{in_words(span.begin)} to {in_words(span.end)}"
    return f"<i class='vn-{span.kind}' style='left:{begin:.2f}%;width:{width:.2f}%' title='{told}'></i>"


def _legend(time: RunTime) -> str:
    here = {span.kind for step in time.steps for span in step.spans}
    items = "".join(
        f"<span><i class='vn-swatch vn-{kind}'></i>{told}</span>" for kind, told in _KINDS.items() if kind in here
    )
    return f"<div class='vn-legend'>{items}</div>"


def _cost(cost: RunCost) -> str:
    unit = "GPU-hours" if cost.on_gpu else "CPU-hours of this machine"
    startup = f"{_figure(cost.startup_hours)} of them start-up"
    lines = [f"{_figure(cost.hours)} {unit}, {startup}: the time that EMBED_SHARD held a device"]
    if cost.kwh is None:
        lines.append("energy: the device does not tell")
    else:
        startup = f", {_figure(cost.startup_kwh)} of it start-up" if cost.startup_kwh is not None else ""
        power = f", {1000 * cost.kwh / cost.hours:,.0f} W in the mean" if cost.hours else ""
        lines.append(f"{_figure(cost.kwh)} kWh{startup}{power}: the cards alone, without their hosts and cooling")
    hour = _input("price of an hour", cost.hours)
    energy = _input("price of a kWh", cost.kwh) if cost.kwh is not None else ""
    prices = _PRICES.replace("HOUR_INPUT", hour).replace("ENERGY_INPUT", energy)
    return f"<div class='mt-3'>{list_of(lines)}</div>{prices}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _input(label: str, amount: float) -> str:
    field = f"<input type='number' min='0' step='any' class='form-control form-control-sm' data-amount='{amount:.6g}'>"
    return f"<label>{label} {field}</label>"
