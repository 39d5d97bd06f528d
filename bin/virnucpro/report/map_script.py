"""What draws the map in the reader's browser, with the Plotly that MultiQC puts on the page."""

from __future__ import annotations

from typing import Final

#: Takes the drawn points as JSON in place of DRAWN, and colours in place of PALETTE. Names reach the page as text; what
#: is shown on hover is escaped.
SCRIPT: Final = """
<script>
document.addEventListener("DOMContentLoaded", () => {
  const map = DRAWN;
  const palette = PALETTE;
  const dark = () => document.documentElement.dataset.bsTheme === "dark";
  const neutral = () => dark() ? ["#a8a8a8", "#6a6a6a"] : ["#6f6f6f", "#b4b4b4"];
  const ink = () => dark() ? "#dcdcdc" : "#3c3c3c";
  const grid = () => dark() ? "rgba(180,180,180,0.25)" : "rgba(128,128,128,0.2)";
  // Viridis without the end that is lost on the page's ground.
  const viridis = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58"];
  const scale = () => (dark() ? ["#6f7fd0", "#4a97b8", ...viridis.slice(5), "#b5de2b", "#fde725"] : viridis)
    .map((colour, place, all) => [place / (all.length - 1), colour]);
  const choice = document.getElementById("map-colour");
  const legend = document.getElementById("map-legend");

  const ticks = (values) => {
    const ends = [Math.min(...values), Math.max(...values)];
    const round = [1, 2, 5].flatMap((digit) => [...Array(7).keys()].map((power) => digit * 10 ** power));
    const inside = round.filter((tick) => tick > ends[0] && tick < ends[1]).sort((one, other) => one - other);
    return inside.length > 1 ? inside.filter((_, place) => inside.length < 6 || place % 2 === 0) : ends;
  };
  const markers = (colouring) => {
    const common = {size: 6, opacity: 0.8, line: {width: 0}};
    if (colouring.names) {
      const others = neutral();
      return {...common, showscale: false, color: colouring.values.map((v) => v < 0 ? others[-v - 1] : palette[v])};
    }
    const scaled = colouring.values.map((v) => v === null ? null : colouring.logarithmic ? Math.log10(v) : v);
    const bar = {
      orientation: "h", x: 0, xanchor: "left", y: 1.01, yanchor: "bottom", thickness: 10, len: 0.7, outlinewidth: 0,
      tickfont: {color: ink()}, nticks: 5
    };
    if (colouring.logarithmic) {
      const shown = ticks(colouring.values.filter((v) => v !== null));
      Object.assign(bar, {tickvals: shown.map(Math.log10), ticktext: shown.map((tick) => tick.toLocaleString("en"))});
    }
    return {...common, color: scaled, colorscale: scale(), showscale: true, colorbar: bar};
  };
  const entry = (colour, text) => {
    const item = document.createElement("span");
    const swatch = document.createElement("span");
    swatch.className = "vn-swatch";
    swatch.style.background = colour;
    item.append(swatch, text);
    return item;
  };
  const explain = (colouring) => {
    const others = neutral();
    const items = (colouring.names || []).map((name, place) => entry(palette[place], name));
    const rest = colouring.names ? [[-1, colouring.others], [-2, colouring.none]] : [];
    rest.filter(([code]) => colouring.values.includes(code))
      .forEach(([code, name]) => items.push(entry(others[-code - 1], name)));
    if (map.reference.x.length) items.push(entry("#888888", "crosses: the reference"));
    legend.replaceChildren(...items);
  };
  const axis = (title, more) => ({
    title: {text: title, font: {color: ink()}}, tickfont: {color: ink()}, gridcolor: grid(), zeroline: false,
    automargin: true, ...more
  });
  const layout = (x, y) => ({
    showlegend: false, hovermode: "closest", margin: {t: 45, r: 10, l: 50, b: 45}, xaxis: x, yaxis: y,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: ink()},
    modebar: {bgcolor: "rgba(0,0,0,0)", color: "#888888", activecolor: ink()}
  });
  const points = (x, y, marker) => ({
    type: "scatter", mode: "markers", x: x, y: y, marker: marker, text: map.text,
    hovertemplate: "%{text}<extra></extra>"
  });
  const reference = {
    type: "scatter", mode: "markers", x: map.reference.x, y: map.reference.y, text: map.reference.text,
    hovertemplate: "%{text}<extra>reference</extra>", marker: {size: 5, opacity: 0.4, color: "#888888", symbol: "cross"}
  };
  const draw = () => {
    const colouring = map.colourings[choice.value];
    const shown = {responsive: true, displaylogo: false};
    const marker = markers(colouring);
    const axes = layout(axis(map.xlab), axis(map.ylab));
    Plotly.react("embedding-map", [reference, points(map.x, map.y, marker)], axes, shown);
    const trend = document.getElementById("length-map");
    if (trend) {
      const log = axis("residues", {type: "log", dtick: 1});
      const plain = {...marker, showscale: false};
      Plotly.react(trend, [points(map.length, map.x, plain)], layout(log, axis(map.xlab)), shown);
    }
    explain(colouring);
  };
  map.colourings.forEach((colouring, place) => choice.add(new Option(colouring.title, place)));
  choice.addEventListener("change", draw);
  new MutationObserver(draw).observe(document.documentElement, {attributeFilter: ["data-bs-theme"]});
  draw();
});
</script>
"""
