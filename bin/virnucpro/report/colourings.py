"""What the map may be coloured by: of each sampled record a number, or the name of what it belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from virnucpro.output.damage import REMEDY_OF_RESULTS, reading
from virnucpro.report.clusters import Clusters
from virnucpro.report.page_style import PALETTE
from virnucpro.report.sampling import SampledRows
from virnucpro.shards import shard_name

#: Names that have a colour of their own; as many as eyes tell apart.
MOST_NAMES: Final = len(PALETTE)
_LONGEST_NAME: Final = 40
_BATCH_ROWS: Final = 131_072
#: In ``values``, of a record whose name has no colour of its own, and of one that belongs to nothing.
OTHERS, NONE = -1, -2


@dataclass(frozen=True)
class Colouring:
    """One way to colour the map.

    Attributes:
        title: what the reader chooses it by.
        values: numbers, None where not known; or with ``names``, places in these, ``OTHERS`` or ``NONE``.
        names: of the categories that have a colour, with the records of each; None where ``values`` are numbers.
        logarithmic: whether numbers are coloured by their logarithm.
        others, none: what those without a colour of their own are called.
    """

    title: str
    values: Sequence[float | int | None]
    names: Sequence[str] | None = None
    logarithmic: bool = False
    others: str = "others"
    none: str = "none"

    def drawn(self) -> dict[str, Any]:
        """As the page's script takes it."""
        kind = {"names": list(self.names), "others": self.others, "none": self.none} if self.names is not None else {}
        return {"title": self.title, "values": list(self.values), "logarithmic": self.logarithmic, **kind}


def colourings(
    sample: SampledRows,
    clusters: Clusters | None,
    records: Mapping[str, int],
    cosines: np.ndarray | None,
    reference: bool,
) -> list[Colouring]:
    """Those that tell something of this sample: a run of one shard is not coloured by shard.

    Args:
        records: of the whole run by the key of their sequence.
        cosines: of each row with its nearest neighbour, NaN where not known; None where nobody asked for neighbours.
        reference: whether those are in a reference.
    """
    found = [Colouring("length in residues", sample.lengths.tolist(), logarithmic=True)]
    if clusters is not None:
        found.append(_by_cluster(clusters))
    found += [_by_name(name, words) for name, words in sample.worded.items() if len(set(words)) > 1]
    if cosines is not None:
        title = f"cosine of the nearest {'in the reference' if reference else 'neighbour'}"
        known = [None if np.isnan(value) else round(value, 5) for value in cosines.tolist()]
        found.append(Colouring(title, known))
    alike = [records.get(key, 1) for key in sample.keys]
    if max(alike, default=1) > 1:
        found.append(Colouring("records of the same sequence", alike, logarithmic=True))
    shards = sample.shards.tolist()
    if len(set(shards)) > MOST_NAMES:
        found.append(Colouring("number of the shard", [shard if shard >= 0 else None for shard in shards]))
    elif len(set(shards)) > 1:
        found.append(_by_name("shard", [shard_name(shard) if shard >= 0 else "reused" for shard in shards]))
    return found


def records_by_key(manifest: Path, keys: Sequence[str]) -> dict[str, int]:
    """Records of the ledger by these keys of sequences, in memory that does not grow with it."""
    wanted = pa.array(sorted(set(keys)), pa.string())
    counts: Counter[str] = Counter()
    with reading(manifest, REMEDY_OF_RESULTS), pq.ParquetFile(manifest) as ledger:
        for batch in ledger.iter_batches(_BATCH_ROWS, columns=["sequence_key"]):
            column = batch["sequence_key"]
            found = column.filter(pc.is_in(column, value_set=wanted))
            counts.update({each["values"]: each["counts"] for each in pc.value_counts(found).to_pylist()})
    return dict(counts)


def nearest_by_ordinal(neighbours: Path, ordinals: np.ndarray) -> np.ndarray | None:
    """Cosine of each record with its nearest neighbour, NaN where it has none; None without the file."""
    if not neighbours.is_file():
        return None
    order = np.argsort(ordinals)
    cosines = np.full(len(ordinals), np.nan)
    with reading(neighbours, REMEDY_OF_RESULTS), pq.ParquetFile(neighbours) as pairs:
        for batch in pairs.iter_batches(_BATCH_ROWS, columns=["ordinal", "rank", "cosine"]):
            first = batch["rank"].to_numpy() == 1
            here, values = batch["ordinal"].to_numpy()[first], batch["cosine"].to_numpy()[first]
            places = np.minimum(np.searchsorted(ordinals[order], here), max(len(ordinals) - 1, 0))
            known = ordinals[order][places] == here if len(ordinals) else np.zeros(len(here), bool)
            cosines[order[places[known]]] = values[known]
    return cosines


def _by_cluster(clusters: Clusters) -> Colouring:
    of_row, sizes = clusters.of_row, clusters.sizes
    values = np.where(of_row >= MOST_NAMES, OTHERS, np.where(of_row < 0, NONE, of_row))
    names = [f"{number} ({size:,})" for number, size in enumerate(sizes[:MOST_NAMES], 1)]
    none = f"in none ({int((of_row < 0).sum()):,})"
    return Colouring("cluster", values.tolist(), names, others=f"others ({sum(sizes[MOST_NAMES:]):,})", none=none)


def _by_name(title: str, words: Sequence[str]) -> Colouring:
    """The most common names have colours; of equally common ones the first in the alphabet."""
    counts = Counter(word for word in words if word)
    common = sorted(counts, key=lambda word: (-counts[word], word))[:MOST_NAMES]
    place = {word: number for number, word in enumerate(common)}
    values = [place.get(word, OTHERS) if word else NONE for word in words]
    names = [f"{_short(word)} ({counts[word]:,})" for word in common]
    return Colouring(title, values, names, others=f"others ({values.count(OTHERS):,})", none="none")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
