"""How the page's own sections look; colours are MultiQC's, which follow its light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from typing import Final

#: Of lines, bars and groups: each has a contrast of 3 on the light ground and on the dark one.
PALETTE: Final = (
    "#4e79a7",
    "#d9730d",
    "#459a45",
    "#e15759",
    "#b07aa1",
    "#9c755f",
    "#138f8f",
    "#d37295",
    "#8f8f00",
)


def palette_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, in their order; with more names than colours these come again."""
    return dict(zip(names, cycle(PALETTE)))


#: MultiQC greets first-time readers with a link to a video; this page has to do without a network.
STYLE: Final = """
#mqc_welcome { display: none !important; }
[data-bs-theme="dark"] .legendtext { fill: #dcdcdc !important; }
.vn-choice { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem; }
.vn-choice select { width: auto; max-width: 100%; }
.vn-legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; margin-top: 0.5rem; }
.vn-swatch { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em; border-radius: 50%; }
.vn-plot { height: 560px; max-width: 100%; }
.vn-choice label { display: flex; align-items: center; gap: 0.4rem; }
.vn-choice input { width: 6rem; }
.vn-step { display: grid; grid-template-columns: 17rem 1fr 11rem; gap: 0.75rem; align-items: center; }
.vn-step { padding: 0.15rem 0; }
.vn-step > span:first-child { overflow-wrap: anywhere; }
.vn-track { position: relative; height: 1rem; background: var(--bs-secondary-bg); }
.vn-track i { position: absolute; top: 0; bottom: 0; min-width: 2px; }
.vn-work { background: #459a45; }
.vn-startup { background: #4e79a7; }
.vn-failed { background: #e15759; }
.vn-axis { display: flex; justify-content: space-between; margin: 0 11.75rem 0 17.75rem; }
@media (max-width: 800px) {
  .vn-step { grid-template-columns: 1fr auto; }
  .vn-step .vn-track { grid-row: 2; grid-column: 1 / 3; }
  .vn-axis { margin: 0; }
}
.vn-table td, .mqc_versions_table th, .mqc_versions_table td { overflow-wrap: anywhere; }
"""
