"""The map of the embeddings, and their lengths against it, as sections of the page."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from virnucpro.report.colourings import Colouring
from virnucpro.report.embedding_map import EmbeddingMap
from virnucpro.report.length_trend import trend_in_words
from virnucpro.report.map_script import SCRIPT
from virnucpro.report.page_style import PALETTE
from virnucpro.report.sampling import SampledRows
from virnucpro.report.sections import Section
from virnucpro.shards import shard_name

_LONGEST_ID: Final = 80
_MAP: Final = """
<div class="vn-choice"><label for="map-colour">Coloured by</label>
<select id="map-colour" class="form-select form-select-sm"></select></div>
<div id="map-legend" class="vn-legend"></div>
<div id="embedding-map" class="vn-plot"></div>
"""


def map_section(found: EmbeddingMap, colourings: Sequence[Colouring]) -> Section:
    """The map of the embeddings, drawn by the Plotly that MultiQC puts on the page."""
    sample = found.sample
    where = [shard_name(shard) if shard >= 0 else "reused" for shard in sample.shards.tolist()]
    first, second = (f"PC{axis}, {100 * found.explained[axis - 1]:.1f} % of the variance" for axis in (1, 2))
    drawn = {
        **_points(sample, found.points, where),
        "reference": _reference_points(found),
        "length": sample.lengths.tolist(),
        "colourings": [each.drawn() for each in colourings],
        "xlab": first,
        "ylab": second,
    }
    text = (
        f"The first two principal components of {extent(found)}, vectors of <code>{html.escape(sample.column)}</code>."
    )
    if found.reference is not None:
        text += f" Grey crosses: {len(found.reference.ids):,} of the reference."
    if found.not_finite:
        text += f" <strong>{found.not_finite:,} sampled vectors hold NaN or infinity and are not drawn</strong>."
    if found.equal:
        text += " <strong>All sampled vectors are equal: something is broken</strong>."
    # Of what could end a script element early, nothing is without this letter.
    payload = json.dumps(drawn, allow_nan=False).replace("<", "\\u003c")
    return {
        "id": "map",
        "section_name": "Embedding map",
        "description": text,
        "plot_type": "html",
        "data": _MAP + SCRIPT.replace("PALETTE", json.dumps(PALETTE), 1).replace("DRAWN", payload, 1),
    }


def length_section(found: EmbeddingMap) -> Section | None:
    """Lengths against the first component, which the map's script draws; None of too few, or of one length."""
    told = trend_in_words(found.points, found.sample.lengths)
    if not told:
        return None
    return {
        "id": "length_map",
        "section_name": "Lengths against the map",
        "description": f"{'. '.join(told)} (Spearman's rank correlation over {extent(found)}). "
        "What follows length alone says little of function: compare proteins of like lengths.",
        "plot_type": "html",
        "data": '<div id="length-map" class="vn-plot"></div>',
    }


def extent(found: EmbeddingMap) -> str:
    """'all 351 records' or '5,000 records drawn of 1,000,000'."""
    drawn, of = len(found.sample.ids), found.sample.of
    if drawn + found.not_finite < of:
        return f"{drawn:,} records drawn of {of:,}"
    if drawn == of == 1:
        return "the one record"
    return f"all {drawn:,} records" if drawn == of else f"the {drawn:,} records with finite vectors"


def shown_id(name: str) -> str:
    """A record's id as the page shows it, as HTML."""
    return html.escape(name[:_LONGEST_ID] or "no id")


def _reference_points(found: EmbeddingMap) -> dict[str, list[Any]]:
    if found.reference is None or found.reference_points is None:
        return {"x": [], "y": [], "text": []}
    return _points(found.reference, found.reference_points, ["in the reference"] * len(found.reference.ids))


def _points(sample: SampledRows, points: np.ndarray, where: Sequence[str]) -> dict[str, list[Any]]:
    """Where rows lie, and what is shown of each on hover."""
    x, y = np.round(points[:, :2].astype(np.float64), 4).T.tolist()
    rows = zip(sample.ids, sample.lengths.tolist(), where, strict=True)
    text = [f"{shown_id(name)}<br>{length:,} residues<br>{place}" for name, length, place in rows]
    return {"x": x, "y": y, "text": text}
