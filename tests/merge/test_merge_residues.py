"""Residues come into results as they were written: linked where a whole file is wanted, else row by row."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from merge.merge_runs import Run, key, metadata, residues
from merge.older_results import make_older

from virnucpro.errors import DataError, LedgerError
from virnucpro.merge.merge import merge
from virnucpro.merge.verify import verify
from virnucpro.output.contracts import ShardSummary
from virnucpro.output.residue_reader import read_residues
from virnucpro.output.residues import ResidueWriter


def parts(results: Path) -> list[Path]:
    return sorted((results / "residues").glob("part-*.parquet"))


def found(results: Path) -> dict[str, bytes]:
    rows = [row for path in parts(results) for row in read_residues(path, ["residues"])]
    assert len(dict(rows)) == len(rows)
    return {each: matrices["residues"].tobytes() for each, matrices in rows}


def expected(sequences: set[int]) -> dict[str, bytes]:
    return {key(sequence): residues(sequence).astype("<f2").tobytes() for sequence in sequences}


def merged(run: Run) -> Path:
    merge(run.config())
    results = run.config().outdir
    verify(results)
    return results


def same_file(one: Path, other: Path) -> bool:
    return one.stat().st_ino == other.stat().st_ino


def test_shards_parts_are_linked(tmp_path: Path) -> None:
    run = Run(tmp_path, [3, 4, 3, 5, 6], shards=2, residues=True)
    results = merged(run)
    assert found(results) == expected({3, 4, 5, 6})
    shards = [tmp_path / f"shard-0000{shard}" / "residues" / "part-00000.parquet" for shard in (0, 1)]
    assert [same_file(*pair) for pair in zip(parts(results), shards, strict=True)] == [True, True]


def test_where_no_link_can_be_made_parts_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    run = Run(tmp_path, [3, 4, 3, 5, 6], shards=2, residues=True)
    monkeypatch.setattr(os, "link", refuse)
    results = merged(run)
    assert found(results) == expected({3, 4, 5, 6})
    shard = tmp_path / "shard-00000" / "residues" / "part-00000.parquet"
    assert not same_file(parts(results)[0], shard)
    assert parts(results)[0].read_bytes() == shard.read_bytes()


def test_a_staged_shard_is_linked_through_its_symbolic_link(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", [3, 4, 5], residues=True)
    (tmp_path / "work").mkdir()
    shutil.move(run.folder / "shard-00000", tmp_path / "work")
    (run.folder / "shard-00000").symlink_to(tmp_path / "work" / "shard-00000")
    part = parts(merged(run))[0]
    assert not part.is_symlink()
    assert same_file(part, tmp_path / "work" / "shard-00000" / "residues" / "part-00000.parquet")


def test_earlier_parts_are_linked_whole_or_copied_in_part(tmp_path: Path) -> None:
    first = Run(tmp_path / "first", [3, 4, 3, 5], shards=2, residues=True)
    earlier = [(merged(first), first.kept())]
    whole = Run(tmp_path / "whole", [7, 3, 4, 5], earlier=earlier, residues=True)
    results = merged(whole)
    assert found(results) == expected({7, 3, 4, 5})
    assert [same_file(*pair) for pair in zip(parts(results)[1:], parts(earlier[0][0]), strict=True)] == [True, True]
    some = Run(tmp_path / "some", [5, 9, 3], earlier=earlier, residues=True)
    results = merged(some)
    assert found(results) == expected({5, 9, 3})
    linked = [any(same_file(part, other) for other in parts(earlier[0][0])) for part in parts(results)]
    assert linked == [False, True, False]


@pytest.mark.parametrize("sequences", [[7, 3, 4, 5], [3, 5], [9, 4]])
def test_results_of_earlier_versions_are_reused(tmp_path: Path, sequences: list[int]) -> None:
    first = Run(tmp_path / "first", [3, 4, 3, 5], shards=2, residues=True)
    earlier = merged(first)
    make_older(earlier)
    assert pq.read_schema(parts(earlier)[0]).names == ["sequence_key", "length", "residues"]
    verify(earlier)
    assert found(earlier) == expected({3, 4, 5})
    run = Run(tmp_path / "run", sequences, earlier=[(earlier, first.kept())], residues=True)
    results = merged(run)
    assert found(results) == expected(set(sequences))
    kinds = {pq.read_schema(part).field("residues").type for part in parts(results)}
    assert [str(kind) for kind in kinds] == ["binary"]


def replace_residues(shard: Path, sequences: list[int], column: str = "residues", **changes: Any) -> None:
    """Give a shard other residues, to which its own summary holds."""
    shutil.rmtree(shard / "residues")
    writer = ResidueWriter(shard / "residues", {column: 3}, metadata(**changes))
    writer.write([key(each) for each in sequences], [{column: residues(each)} for each in sequences])
    writer.close()
    summary = ShardSummary.read(shard / "summary.json")
    digests = summary.digests | {f"residues/{path.name}": digest for path, digest in writer.digests.items()}
    replace(summary, digests=digests).write(shard / "summary.json")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sequences": [3, 4]}, LedgerError, r"residues of 2 sequences for 3, or of others; embed it again"),
        ({"sequences": [3, 4, 5, 6]}, LedgerError, r"residues of 4 sequences for 3, or of others"),
        ({"sequences": [3, 4, 4]}, LedgerError, r"residues of 3 sequences for 3, or of others"),
        ({"sequences": [3, 4, 6]}, LedgerError, r"residues of 3 sequences for 3, or of others"),
        ({"weights_sha256": "cd" * 32}, DataError, r"weights_sha256 is cdcd.* in its other vectors"),
        ({"layers": [5]}, DataError, r"layers is \[5\], but \[6\] in its other vectors"),
        ({"column": "residues_layer6"}, DataError, r"other columns in part-00000.parquet; embed it again"),
    ],
)
def test_residues_that_are_not_the_shards_are_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    run = Run(tmp_path, [1, 2, 3, 4, 5], shards=2, residues=True)
    replace_residues(tmp_path / "shard-00000", [1, 2])
    replace_residues(tmp_path / "shard-00001", **({"sequences": [3, 4, 5]} | changes))
    with pytest.raises(error, match=rf"^shard 1 \(.*{message}"):
        merge(run.config())
    assert not run.config().outdir.exists()


def test_a_shard_without_the_residues_that_were_asked_for_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, [3, 4, 5], residues=True)
    run.residues = False
    run.rewrite_shard(0)
    with pytest.raises(LedgerError, match=r"shard 0 .*no residues, for which the split was asked"):
        merge(run.config())


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, [3, 4, 5], residues=True)
    (tmp_path / "shard-00000" / "residues" / "part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"shard-00000/residues/part-00000.parquet: a file is missing; embed it again"):
        merge(run.config())
