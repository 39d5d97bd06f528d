"""What the map may be coloured by, and how it goes with lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import sample_of
from synthetic_results import Run, make_results

from virnucpro.output.schema import NEIGHBOURS_SCHEMA
from virnucpro.report.clusters import Clusters
from virnucpro.report.colourings import MOST_NAMES, NONE, OTHERS, colourings, nearest_by_ordinal, records_by_key
from virnucpro.report.embedding_map import map_embeddings
from virnucpro.report.length_trend import rank_correlation, trend_in_words
from virnucpro.report.map_section import length_section, map_section
from virnucpro.report.report import page_content
from virnucpro.report.sampling import sample_rows

VECTORS = np.random.default_rng(0).normal(size=(12, 4))


def titles(sample: object, *facts: object, reference: bool = False) -> list[str]:
    return [each.title for each in colourings(sample, *facts, reference=reference)]  # type: ignore[arg-type]


def test_what_is_the_same_of_all_records_colours_nothing() -> None:
    assert titles(sample_of(VECTORS), None, {}, None) == ["length in residues"]
    worded = {"sample": ("gut",) * 12, "contig": ("", *("c",) * 11)}
    sample = sample_of(VECTORS, worded=worded, shards=np.array([-1, *range(11)]))
    clusters = Clusters(np.array([0] * 6 + [1] * 6), (0, 6), 3)
    records = {sample.keys[3]: 4}
    assert titles(sample, clusters, records, np.full(12, 0.9), reference=True) == [
        "length in residues",
        "cluster",
        "contig",
        "cosine of the nearest in the reference",
        "records of the same sequence",
        "number of the shard",
    ]


def test_the_most_common_names_have_colours() -> None:
    words = tuple("ab"[row % 2] if row < 30 else f"rare{row:02d}" if row < 50 else "" for row in range(60))
    sample = sample_of(np.zeros((60, 2)), worded={"sample": words})
    found = colourings(sample, None, {}, None, reference=False)[1]
    assert found.names is not None and len(found.names) == MOST_NAMES
    assert found.names[:3] == ["a (15)", "b (15)", "rare30 (1)"]
    assert found.values[:2] == [0, 1] and found.values[49] == OTHERS and found.values[59] == NONE
    assert found.others == "others (13)"


def test_clusters_beyond_those_with_colours_are_others() -> None:
    of_row = np.array([*range(MOST_NAMES + 1), -1])
    clusters = Clusters(of_row, tuple(range(MOST_NAMES + 1)), 3)
    found = colourings(sample_of(np.zeros((len(of_row), 2))), clusters, {}, None, reference=False)[1]
    assert found.values == [*range(MOST_NAMES), OTHERS, NONE]
    assert (found.others, found.none) == ("others (1)", "in none (1)")


def test_names_from_a_sample_sheet_stay_in_the_script() -> None:
    sample = sample_of(VECTORS, worded={"sample": ("</script><b>", *("x",) * 11)})
    section = map_section(map_embeddings(sample), colourings(sample, None, {}, None, reference=False))
    assert section["data"].count("</script>") == 1 and "<b>" not in section["data"]


def test_samples_and_contigs_are_read_where_results_have_them(tmp_path: Path) -> None:
    results = make_results(tmp_path / "results", Run(records=100))
    (part,) = (results / "embeddings").glob("part-*.parquet")
    table = pq.read_table(part)
    sample = pa.array(["gut", "soil"] * (table.num_rows // 2)).dictionary_encode()
    contig = pa.array([None, *["c1"] * (table.num_rows - 1)])
    pq.write_table(table.append_column("sample", sample).append_column("contig", contig), part)
    found = sample_rows([part])
    assert found is not None
    assert {name: words[:2] for name, words in found.worded.items()} == {
        "sample": ("gut", "soil"),
        "contig": ("", "c1"),
    }
    page = next(section for section in page_content(results)[0] if section["id"] == "map")
    assert '"title": "sample"' in page["data"] and '"title": "contig"' in page["data"]


def test_records_of_one_sequence_are_counted_over_the_whole_ledger(tmp_path: Path) -> None:
    manifest = make_results(tmp_path / "results", Run(records=100)) / "manifest.parquet"
    table = pq.read_table(manifest)
    keys = table["sequence_key"].to_pylist()
    keys[3] = keys[4] = keys[90]
    place = table.schema.get_field_index("sequence_key")
    pq.write_table(table.set_column(place, "sequence_key", pa.array(keys)), manifest)
    assert records_by_key(manifest, [keys[90], keys[1], "f" * 32]) == {keys[90]: 3, keys[1]: 1}
    assert records_by_key(manifest, []) == {}


def test_each_record_has_the_cosine_of_its_nearest(tmp_path: Path) -> None:
    path = tmp_path / "neighbours.parquet"
    pairs = [(5, 1, 0.9), (5, 2, 0.8), (7, 1, 0.5), (2, 1, 0.25)]
    rows = [
        {"ordinal": one, "id": "", "rank": rank, "neighbour_ordinal": 0, "neighbour_id": "", "cosine": cosine}
        for one, rank, cosine in pairs
    ]
    pq.write_table(pa.Table.from_pylist(rows, NEIGHBOURS_SCHEMA), path)
    found = nearest_by_ordinal(path, np.array([7, 3, 5]))
    assert found is not None and np.array_equal(found, [0.5, np.nan, np.float32(0.9)], equal_nan=True)
    assert nearest_by_ordinal(path, np.array([], np.int64)).tolist() == []  # type: ignore[union-attr]
    assert nearest_by_ordinal(tmp_path / "absent", np.array([1])) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=40))
def test_the_rank_correlation_is_that_of_the_ranks(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs, float).T
    found = rank_correlation(one, other)

    def ranks(values: np.ndarray) -> np.ndarray:
        return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])

    if len(set(one)) == 1 or len(set(other)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(np.corrcoef(ranks(one), ranks(other))[0, 1], abs=1e-9)


def test_lengths_are_set_against_the_map_in_words() -> None:
    lengths = np.arange(12) ** 3 + 10
    points = np.stack([np.log(lengths), np.tile([0.0, 1.0], 6)], axis=1).astype(np.float32)
    first, second = trend_in_words(points, lengths)
    assert first == "The first component follows length: rho 1.00"
    assert second.startswith("The second component does not follow length: rho 0.1")
    assert trend_in_words(points[:2], lengths[:2]) == []
    assert length_section(map_embeddings(sample_of(VECTORS))) is None  # all of one length
    section = length_section(map_embeddings(sample_of(VECTORS, lengths=lengths)))
    assert section is not None and "over all 12 records" in section["description"]
