"""A flipped bit in a column's name leaves files without vectors or residues that are Parquet all the same: bad data."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from merge.merge_runs import Run

from virnucpro.errors import DataError
from virnucpro.merge.merge import merge
from virnucpro.neighbours.results import Results
from virnucpro.output.residue_reader import residue_dims
from virnucpro.output.schema import RESIDUES_KEY, decode_metadata, encode_metadata, residues_type
from virnucpro.report.sampling import sample_rows


def flip(name: str) -> str:
    """The name with a bit of its first letter flipped."""
    return chr(ord(name[0]) ^ 1) + name[1:]


def rename(path: Path, column: str) -> None:
    table = pq.read_table(path, partitioning=None)
    renamed = table.rename_columns([flip(name) if name == column else name for name in table.column_names])
    pq.write_table(renamed.replace_schema_metadata(table.schema.metadata), path)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    run = Run(tmp_path / "earlier", [0, 1, 2], residues=True)
    merge(run.config())
    return run.config().outdir


def test_residues_of_a_shard(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, 1, 2], residues=True)
    rename(run.folder / "shard-00000" / "residues" / "part-00000.parquet", "residues")
    with pytest.raises(DataError, match=r"shard-00000/residues/part-00000.parquet: no column of residues"):
        merge(run.config())
    assert not run.config().outdir.exists()


@pytest.mark.parametrize(
    ("folder", "column", "told"),
    [("embeddings", "embedding", "no embedding column"), ("residues", "residues", "no column of residues")],
)
def test_earlier_results_where_nothing_is_new(
    results: Path, tmp_path: Path, folder: str, column: str, told: str
) -> None:
    run = Run(tmp_path / "now", [1, 2], earlier=[(results, [0, 1, 2])], residues=True)
    rename(results / folder / "part-00000.parquet", column)
    with pytest.raises(DataError, match=f"{folder}/part-00000.parquet: {told}"):
        merge(run.config())
    assert not run.config().outdir.exists()


def test_the_report_and_neighbours(results: Path) -> None:
    part = results / "embeddings" / "part-00000.parquet"
    rename(part, "embedding")
    with pytest.raises(DataError, match=r"part-00000.parquet: no embedding column"):
        sample_rows([part])
    with pytest.raises(DataError, match="the table: no embedding column"):
        Results.of(pq.read_table(part, partitioning=None))


def test_residues_of_several_dimensions_are_refused() -> None:
    lists = {f"residues_layer{dim}": residues_type(dim) for dim in (3, 4)}
    with pytest.raises(DataError, match="columns of different kinds"):
        residue_dims(pa.schema(lists), "here")
    told = encode_metadata({RESIDUES_KEY: {"dim": 3}})
    with pytest.raises(DataError, match="columns of different kinds"):
        residue_dims(pa.schema({"residues_a": residues_type(3), "residues_b": pa.binary()}, metadata=told), "here")


@pytest.mark.parametrize("raw", [b"{", b"[1]", b"\xff", b"[" * 200_000])
def test_metadata_that_are_no_object_are_bad_data(raw: bytes) -> None:
    with pytest.raises(DataError, match="here: metadata is not a JSON object"):
        decode_metadata(pa.schema({"a": pa.int32()}, metadata={"virnucpro": raw}), "here")
