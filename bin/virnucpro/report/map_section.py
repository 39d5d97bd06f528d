"""The map of the embeddings as a section of the page."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from virnucpro.report.embedding_map import EmbeddingMap, SampledRows
from virnucpro.report.sections import Section
from virnucpro.shards import shard_name

_MAP_SCRIPT: Final = """
<div id="embedding-map" style="height: 600px"></div>
<script>
(function () {
  const map = %s;
  const marker = (values, title) => ({
    size: 6, opacity: 0.75, color: values, colorscale: "Viridis", showscale: true, colorbar: {title: {text: title}}
  });
  const trace = {
    type: "scatter", mode: "markers", x: map.x, y: map.y, text: map.text, hovertemplate: "%%{text}<extra></extra>",
    marker: marker(map.length, "residues")
  };
  const reference = {
    type: "scatter", mode: "markers", x: map.reference.x, y: map.reference.y, text: map.reference.text,
    hovertemplate: "%%{text}<extra>reference</extra>", marker: {size: 5, opacity: 0.4, color: "#888", symbol: "cross"}
  };
  const button = (label, values) => (
    {label: label, method: "restyle", args: [{"marker.color": [values], "marker.colorbar.title.text": label}, [1]]}
  );
  Plotly.newPlot("embedding-map", [reference, trace], {
    showlegend: false,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: "#888"},
    margin: {t: 40, r: 10}, hovermode: "closest", modebar: {bgcolor: "rgba(0,0,0,0)"},
    xaxis: {title: {text: map.xlab}, gridcolor: "rgba(128,128,128,0.2)", zeroline: false},
    yaxis: {title: {text: map.ylab}, gridcolor: "rgba(128,128,128,0.2)", zeroline: false},
    updatemenus: [{
      type: "buttons", direction: "right", x: 0, xanchor: "left", y: 1.08, yanchor: "bottom",
      buttons: [button("residues", map.length), button("shard", map.shard)]
    }]
  }, {responsive: true, displaylogo: false});
})();
</script>
"""


def map_section(found: EmbeddingMap) -> Section:
    """The map of the embeddings, drawn by the Plotly that MultiQC puts on the page."""
    sample = found.sample
    where = [shard_name(shard) if shard >= 0 else "reused" for shard in sample.shards.tolist()]
    first, second = (f"PC{axis}, {100 * share:.1f} % of the variance" for axis, share in enumerate(found.explained, 1))
    drawn = {
        **_points(sample, found.points, where),
        "reference": _reference_points(found),
        "length": sample.lengths.tolist(),
        "shard": sample.shards.tolist(),
        "xlab": first,
        "ylab": second,
    }
    column = f"<code>{html.escape(sample.column)}</code>"
    text = f"The first two principal components of {len(sample.ids):,} sampled vectors of {column}."
    if found.reference is not None:
        text += f" Grey crosses: {len(found.reference.ids):,} of the reference."
    if found.not_finite:
        text += f" <strong>{found.not_finite:,} sampled vectors hold NaN or infinity and are not drawn.</strong>"
    if found.equal:
        text += " <strong>All sampled vectors are equal: something is broken.</strong>"
    # Inside a script element only this sequence could end it early.
    payload = json.dumps(drawn, allow_nan=False).replace("</", "<\\/")
    return {
        "id": "map",
        "section_name": "Embedding map",
        "description": text,
        "plot_type": "html",
        "data": _MAP_SCRIPT % payload,
    }


def _reference_points(found: EmbeddingMap) -> dict[str, list[Any]]:
    if found.reference is None or found.reference_points is None:
        return {"x": [], "y": [], "text": []}
    return _points(found.reference, found.reference_points, ["in the reference"] * len(found.reference.ids))


def _points(sample: SampledRows, points: np.ndarray, where: Sequence[str]) -> dict[str, list[Any]]:
    """Where rows lie, and what is shown of each on hover."""
    x, y = np.round(points.astype(np.float64), 4).T.tolist()
    rows = zip(sample.ids, sample.lengths.tolist(), where, strict=True)
    text = [f"{html.escape(name[:80] or 'no id')}<br>{length:,} residues<br>{place}" for name, length, place in rows]
    return {"x": x, "y": y, "text": text}
