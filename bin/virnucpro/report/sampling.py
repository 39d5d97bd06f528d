"""A sample of the rows of results, the same each time: what the page draws, groups and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from virnucpro.output.damage import REMEDY_OF_RESULTS, reading
from virnucpro.output.schema import required_vector_columns

MOST_POINTS: Final = 5_000
SEED: Final = 20_240
#: Columns in words that only some results have, and that the map may be coloured by.
WORDED: Final = ("sample", "contig", "strand")
#: Row groups the sample is drawn from: reading more costs time and adds little.
_MOST_ROW_GROUPS: Final = 16
#: Rows of vectors held in memory at a time: 20 MB of the widest model's.
_BATCH_ROWS: Final = 1_024


@dataclass(frozen=True)
class SampledRows:
    """Sampled rows of results.

    Attributes:
        column: the column of vectors.
        ids: names of the records.
        lengths: residues of each.
        shards: of each, -1 where reused.
        vectors: float32 (rows, dim).
        ordinals: of each, as in the ledger.
        keys: of its sequence, as the model saw it.
        of: rows of the results in all.
        worded: those of ``WORDED`` that the results have.
    """

    column: str
    ids: tuple[str, ...]
    lengths: np.ndarray
    shards: np.ndarray
    vectors: np.ndarray
    ordinals: np.ndarray
    keys: tuple[str, ...]
    of: int
    worded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def at(self, rows: np.ndarray) -> SampledRows:
        """These rows alone."""
        places = rows.tolist()
        return replace(
            self,
            ids=tuple(self.ids[row] for row in places),
            lengths=self.lengths[rows],
            shards=self.shards[rows],
            vectors=self.vectors[rows],
            ordinals=self.ordinals[rows],
            keys=tuple(self.keys[row] for row in places),
            worded={name: tuple(words[row] for row in places) for name, words in self.worded.items()},
        )


def sample_rows(parts: Sequence[Path], most: int = MOST_POINTS, seed: int = SEED) -> SampledRows | None:
    """Draw up to ``most`` rows with their first embedding column, the same ones each time.

    Rows come from at most 16 row groups, drawn at random over all parts, each giving in proportion to its rows; memory
    holds the sample and a thousand rows more. None where the parts hold no row.
    """
    generator = np.random.default_rng(seed)
    groups: list[tuple[Path, int, int]] = []
    for part in sorted(parts):
        with reading(part, REMEDY_OF_RESULTS), pq.ParquetFile(part) as opened:
            sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
        groups += [(part, group, rows) for group, rows in enumerate(sizes) if rows]
    if not groups:
        return None
    chosen = [groups[index] for index in _choose(generator, len(groups), _MOST_ROW_GROUPS)]
    ends = np.cumsum([rows for _, _, rows in chosen])
    places = _choose(generator, int(ends[-1]), most)
    with reading(chosen[0][0], REMEDY_OF_RESULTS):
        schema = pq.read_schema(chosen[0][0])
    column = next(iter(required_vector_columns(schema, chosen[0][0])))
    worded = [name for name in WORDED if name in schema.names]
    columns = ["ordinal", "id", "length", "sequence_key", "shard", column, *worded]
    tables = []
    for (part, group, rows), end in zip(chosen, ends, strict=True):
        wanted = places[(places >= end - rows) & (places < end)] - (end - rows)
        tables += _rows_of_group(part, group, wanted, columns)
    return _sampled(pa.concat_tables(tables), column, sum(rows for _, _, rows in groups), worded)


def finite(sample: SampledRows) -> SampledRows:
    """The rows whose vectors hold neither NaN nor infinity."""
    return sample.at(np.flatnonzero(np.isfinite(sample.vectors).all(axis=1)))


def _choose(generator: np.random.Generator, available: int, most: int) -> np.ndarray:
    if available <= most:
        return np.arange(available)
    return np.sort(generator.choice(available, most, replace=False))


def _rows_of_group(part: Path, group: int, wanted: np.ndarray, columns: list[str]) -> list[pa.Table]:
    tables = []
    begun = 0
    with reading(part, REMEDY_OF_RESULTS), pq.ParquetFile(part) as opened:
        for batch in opened.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
            here = wanted[(wanted >= begun) & (wanted < begun + batch.num_rows)] - begun
            if here.size:
                # take copies: a slice would keep the whole batch alive
                tables.append(pa.Table.from_batches([batch]).take(pa.array(here)))
            begun += batch.num_rows
    return tables


def _sampled(table: pa.Table, column: str, of: int, worded: Sequence[str]) -> SampledRows:
    vectors = table[column].combine_chunks()
    return SampledRows(
        column=column,
        ids=tuple(table["id"].to_pylist()),
        lengths=table["length"].to_numpy(),
        shards=pc.fill_null(table["shard"], -1).to_numpy(),
        vectors=vectors.flatten().to_numpy().reshape(len(vectors), -1).astype(np.float32),
        ordinals=table["ordinal"].to_numpy(),
        keys=tuple(table["sequence_key"].to_pylist()),
        of=of,
        worded={name: tuple(word or "" for word in table[name].to_pylist()) for name in worded},
    )
