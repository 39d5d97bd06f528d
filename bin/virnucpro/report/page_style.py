"""How the page's own sections look; colours are MultiQC's, which follow its light and dark."""

from __future__ import annotations

from typing import Final

#: MultiQC greets first-time readers with a link to a video; this page has to do without a network.
STYLE: Final = """
#mqc_welcome { display: none !important; }
.vn-choice { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem; }
.vn-choice select { width: auto; max-width: 100%; }
.vn-legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; margin-top: 0.5rem; }
.vn-swatch { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em; border-radius: 50%; }
.vn-plot { height: 560px; max-width: 100%; }
.vn-table td { overflow-wrap: anywhere; }
"""
