"""``--neighbours`` in the whole pipeline: the pairs, against itself and a reference, and what the page shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from launch import MODEL, PROJECT, Launch, launch, refusals
from one_bit import flip_a_bit

from virnucpro import nearest
from virnucpro.output.schema import decode_metadata

RECORDS = (PROJECT / "assets" / "proteins.fasta").read_text().split(">")[1:]


def embed(folder: Path, records: list[str], *options: str | Path) -> Launch:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "few.fasta").write_text("".join(f">{record}" for record in records))
    return launch(folder, "--input", folder / "few.fasta", "--model", MODEL, "--max_length", "60", *options)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    run = embed(tmp_path_factory.mktemp("earlier"), RECORDS[:40], "--neighbours", "3", "--report", "false")
    assert run.code == 0, run.output
    return run


def vectors(results: Path) -> pa.Table:
    return pq.read_table(results / "embeddings")


def pairs_of(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["id"].to_pylist(), table["neighbour_id"].to_pylist(), strict=True))


def brute_force(run: pa.Table, reference: pa.Table, count: int) -> list[tuple[str, str]]:
    tables = (run, reference)
    here, there = (np.stack(each["embedding"].to_numpy(zero_copy_only=False)).astype(np.float64) for each in tables)
    cosines = here @ there.T / np.linalg.norm(here, axis=1)[:, None] / np.linalg.norm(there, axis=1)
    if run is reference:
        np.fill_diagonal(cosines, -1)
    ids = [each["id"].to_pylist() for each in tables]
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return [(ids[0][row], ids[1][each]) for row in range(len(cosines)) for each in order[row].tolist()]


def test_a_run_against_itself(earlier: Launch) -> None:
    pairs, run = pq.read_table(earlier.results / "neighbours.parquet"), vectors(earlier.results)
    assert pairs_of(pairs) == brute_force(run, run, 3)
    assert pairs.equals(nearest(run, 3, device="cpu"))
    assert earlier.statuses()["NEIGHBOURS"] == {"COMPLETED"}


@pytest.mark.one_engine
def test_a_reference_is_searched_and_mapped_beside(earlier: Launch, tmp_path: Path) -> None:
    reference = tmp_path / "earlier, 40"
    reference.symlink_to(earlier.results)
    run = embed(tmp_path / "run", RECORDS[100:112], "--neighbours", "5", "--reference", reference)
    assert run.code == 0, run.output
    pairs = pq.read_table(run.results / "neighbours.parquet")
    assert pairs_of(pairs) == brute_force(vectors(run.results), vectors(earlier.results), 5)
    assert decode_metadata(pairs.schema, "")["reference"] == str(reference)
    assert "'--reference=earlier, 40' " in (run.results / "ro-crate-metadata.json").read_text()
    page = (run.results / "report" / "multiqc_report.html").read_text()
    assert "Grey crosses: 40 of the reference." in page
    assert "the 5 nearest of each are in" in page and "earlier, 40" in page
    assert page.count("br>in the reference") == 40
    assert page.count('"cosine of the nearest in the reference"') == 1


@pytest.mark.one_engine
def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    """Reference and number of neighbours, in one start."""
    cases = [[".", None], [".,..", 2], ["lost", 2]]
    assert refusals(tmp_path, "paths", "referenceFolder(each[0], each[1])", cases) == [
        (2, "--reference says where to look for --neighbours; give their number too"),
        (2, "--reference names several folders; give one"),
        (66, "--reference lost: no such folder; check the path"),
    ]


@pytest.mark.one_engine
def test_a_reference_that_is_none_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run = embed(tmp_path, RECORDS[:2], "--neighbours", "1", "--reference", tmp_path / "empty", "--report", "false")
    assert run.code == 66, run.output
    assert "no embeddings/part-*.parquet in it; give the folder of a finished run" in run.last_lines


@pytest.mark.one_engine
def test_a_byte_that_changed_in_a_reference_ends_the_run(earlier: Launch, tmp_path: Path) -> None:
    results = Path(shutil.copytree(earlier.results, tmp_path / "a reference"))
    part = results / "embeddings" / "part-00000.parquet"
    flip_a_bit(part)
    run = embed(tmp_path / "run", RECORDS[40:44], "--neighbours", "2", "--reference", results, "--report", "false")
    assert run.code == 65
    assert f" {part}: not as it was written, a byte was changed" in run.output.splitlines()[-1]
