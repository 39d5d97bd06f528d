"""Clusters and outliers of the sample, with their names, as sections of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from virnucpro.report.clusters import NEAREST, Clusters
from virnucpro.report.embedding_map import EmbeddingMap
from virnucpro.report.map_section import extent, shown_id
from virnucpro.report.outliers import DEVIATIONS, Outliers
from virnucpro.report.sections import Section

#: Clusters that have a row of their own.
MOST_CLUSTERS: Final = 20


def cluster_section(found: EmbeddingMap, clusters: Clusters | None) -> Section:
    """Each cluster by its most central member, its size and its lengths."""
    if clusters is None:
        text = f"Among {extent(found)} no groups stand apart enough to be called clusters."
        return _section("clusters", "Clusters", text, "")
    sizes, lengths = clusters.sizes, found.sample.lengths
    rows = []
    for number, (size, central) in enumerate(zip(sizes[:MOST_CLUSTERS], clusters.central, strict=False), 1):
        members = lengths[clusters.of_row == number - 1]
        span = f"{members.min():,} to {members.max():,}"
        rows.append([str(number), _id(found, central), f"{size:,}", f"{np.median(members):,.0f}", span])
    more = len(sizes) - MOST_CLUSTERS
    near = f"the other's {NEAREST} nearest in the first {found.points.shape[1]} principal components"
    also = f" and at least {clusters.shared} are nearest to both" if clusters.shared else ""
    text = (
        f"{len(sizes):,} clusters hold {sum(sizes):,} of {extent(found)}. Each is named by its most central member: "
        f"the name is of that record, not of a family. Two records are linked where each is among {near}{also}; what "
        "links hold together is a cluster."
    )
    heads = ("Cluster", "Most central member", "Records", "Median length", "Lengths")
    after = f"<p>{more:,} smaller ones are not listed.</p>" if more > 0 else ""
    return _section("clusters", "Clusters", text, _table(heads, rows) + after)


def outlier_section(found: EmbeddingMap, outliers: Outliers | None) -> Section | None:
    """Records that are far from all others; None where there are too few to tell."""
    if outliers is None:
        return None
    rule = f"{outliers.cut:.4f}, the median of {outliers.median:.4f} less {DEVIATIONS:.0f} robust standard deviations"
    near = "a nearest neighbour among them with a cosine below"
    if not outliers.rows:
        return _section("outliers", "Outliers", f"Of {extent(found)} none has {near} {rule}.", "")
    named = f" The {len(outliers.rows)} farthest are listed." if outliers.beyond > len(outliers.rows) else ""
    have = "has" if outliers.beyond == 1 else "have"
    text = (
        f"Of {extent(found)} {outliers.beyond:,} {have} {near} {rule}; records of one sequence count once.{named} "
        "Fragments, low complexity, another organism's protein or a frame that was read wrongly look so, and so does "
        "what is new."
    )
    lengths = found.sample.lengths
    rows = [
        [_id(found, row), f"{lengths[row]:,}", f"{cosine:.4f}", _id(found, near)]
        for row, near, cosine in zip(outliers.rows, outliers.nearest, outliers.cosines, strict=True)
    ]
    return _section("outliers", "Outliers", text, _table(("Record", "Length", "Cosine", "Nearest to it"), rows))


def _section(name: str, title: str, text: str, data: str) -> Section:
    return {"id": name, "section_name": title, "description": text, "plot_type": "html", "data": data or "<div></div>"}


def _id(found: EmbeddingMap, row: int) -> str:
    return shown_id(found.sample.ids[row])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML."""
    head = "".join(f"<th scope='col'>{name}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table class='table table-sm w-auto'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='table-responsive vn-table'>{table}</div>"
