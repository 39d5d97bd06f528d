"""How the page looks in a browser: at two widths, in light and in dark."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from drawn_page import needs_multiqc

from virnucpro.report.page_style import PALETTE

WIDTHS = (1280, 400)
#: Sections of the page that are our own HTML; the rest is drawn by MultiQC.
OURS = ("verdict", "next_steps", "map", "clusters", "outliers", "length_map", "run_time", "parameters")
#: WCAG 2's least contrast of text, and of what is drawn.
TEXT, DRAWN = 4.5, 3.0

#: Elements that stick out of the page with nothing around them that cuts or scrolls.
TOO_WIDE = """
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const box = element.getBoundingClientRect();
  if (box.width === 0 || box.right + window.scrollX <= window.innerWidth + 1) continue;
  let free = true;
  for (let around = element; around && around !== document.documentElement; around = around.parentElement) {
    const style = getComputedStyle(around);
    if (style.position === "fixed" || (around !== element && style.overflowX !== "visible")) free = false;
  }
  if (free) found.push(element.outerHTML.slice(0, 100));
}
return [document.documentElement.scrollWidth, found];
"""

#: [contrast, text, colour, ground] of each piece of text in a section, SVG's too.
CONTRASTS = """
const section = document.getElementById("mqc-module-section-" + arguments[0]);
if (!section) return null;
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => {
  const [red, green, blue] = colour.slice(0, 3)
    .map((value) => value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const ground = (element) => {
  for (let around = element; around; around = around.parentElement) {
    const colour = numbers(getComputedStyle(around).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
return Array.from(section.querySelectorAll("*"))
  .filter((element) => Array.from(element.childNodes).some((node) => node.nodeType === 3 && node.data.trim()))
  .filter((element) => !["SCRIPT", "STYLE", "OPTION"].includes(element.tagName) && element.getClientRects().length)
  .map((element) => {
    const style = getComputedStyle(element);
    const colour = numbers(element instanceof SVGElement ? style.fill : style.color);
    const [one, other] = [light(colour), light(ground(element))].sort((a, b) => b - a);
    return [(one + 0.05) / (other + 0.05), element.textContent.trim().slice(0, 40), colour, ground(element)];
  });
"""


def look(browser: Any, page: Path, width: int, theme: str) -> None:
    """Open the page so, and scroll through it, until all is drawn."""
    metrics = {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    preferred = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", preferred)
    browser.get(page.as_uri())
    for _ in range(20):
        browser.execute_script("window.scrollBy(0, 1000)")
        time.sleep(0.1)
    assert browser.execute_script("return document.documentElement.dataset.bsTheme") == theme


@needs_multiqc
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out_of_the_page(width: int, page: Path, browser: Any) -> None:
    look(browser, page, width, "light")
    wide, found = browser.execute_script(TOO_WIDE)
    assert found == [] and wide <= width


@needs_multiqc
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_of_our_sections_can_be_read(theme: str, page: Path, browser: Any) -> None:
    look(browser, page, 1280, theme)
    for section in OURS:
        found = browser.execute_script(CONTRASTS, section)
        assert found, f"no text in section {section}"
        assert [each for each in found if each[0] < TEXT] == [], section


@needs_multiqc
def test_a_reader_chooses_the_colours_and_changes_the_theme(page: Path, browser: Any) -> None:
    look(browser, page, 1280, "light")
    titles = browser.execute_script("return [...document.getElementById('map-colour').options].map(o => o.text)")
    assert titles[:2] == ["length in residues", "cluster"] and "shard" in titles
    choose = """
    const choice = document.getElementById("map-colour");
    choice.value = arguments[0];
    choice.dispatchEvent(new Event("change"));
    const colours = document.getElementById("embedding-map").data[1].marker.color;
    return [[...new Set(colours)], document.getElementById("map-legend").innerText];
    """
    colours, legend = browser.execute_script(choose, titles.index("shard"))
    assert set(colours) <= set(PALETTE) and len(colours) == 6  # five shards, and the reused
    assert "shard-00000 (" in legend and "reused (" in legend
    colours, legend = browser.execute_script(choose, titles.index("cluster"))
    assert len(colours) > 1 and "1 (" in legend
    ink = "return document.getElementById('embedding-map').layout.font.color"
    before = browser.execute_script(ink)
    browser.execute_script("document.documentElement.dataset.bsTheme = 'dark'")
    time.sleep(0.3)
    assert browser.execute_script(ink) != before
    assert browser.execute_script("return document.getElementById('map-colour').value") == str(titles.index("cluster"))


@needs_multiqc
def test_a_price_that_is_typed_in_is_multiplied(page: Path, browser: Any) -> None:
    look(browser, page, 1280, "light")
    told = browser.execute_script(
        """
        const [hour, energy] = document.querySelectorAll("input[data-amount]");
        const tell = (input, value) => { input.value = value; input.dispatchEvent(new Event("input")); };
        const price = document.getElementById("run-price");
        const said = [price.textContent];
        tell(hour, 2); said.push(price.textContent);
        tell(energy, 1000); said.push(price.textContent);
        return [said, Number(hour.dataset.amount), Number(energy.dataset.amount)];
        """
    )
    (nothing, hours, both), hour, energy = told
    assert nothing == "" and hour > 0 and energy > 0
    assert float(hours.removeprefix("this run: ")) == pytest.approx(2 * hour, rel=0.01)
    assert float(both.removeprefix("this run: ").replace(",", "")) == pytest.approx(2 * hour + 1000 * energy, rel=0.01)


def contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    more, less = sorted((light(one), light(other)), reverse=True)
    return (more + 0.05) / (less + 0.05)


@pytest.mark.parametrize("ground", ["#ffffff", "#181a1b"])
def test_every_colour_of_the_palette_stands_out_on_both_grounds(ground: str) -> None:
    assert min(contrast(colour, ground) for colour in PALETTE) >= DRAWN
