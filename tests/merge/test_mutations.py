"""No change of any input of the merge gives results that differ from the truth: it is refused, or changes nothing."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from merge.damage import damage
from merge.merge_runs import Run, metadata

from virnucpro.errors import ExitCode, VirnucproError
from virnucpro.merge.merge import merge
from virnucpro.merge.verify import verify
from virnucpro.output.contracts import ShardSummary

#: Mutations of each run of this test; MERGE_MUTATIONS=20000 for a long look.
MUTATIONS = int(os.environ.get("MERGE_MUTATIONS", "160"))
SEED = int(os.environ.get("MERGE_SEED", "16"))


def contents(results: Path) -> dict[str, bytes]:
    return {str(path.relative_to(results)): path.read_bytes() for path in results.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two shards with residues, a duplicate, a rejected record and two that come from an earlier run."""
    folder = tmp_path_factory.mktemp("mutations")
    first = Run(folder / "first", [3, 4, 3, 5], residues=True)
    merge(first.config())
    earlier = [(first.config().outdir, first.kept())]
    return Run(folder / "now", [7, 3, 8, 7, None, 9, 5, 10], shards=2, earlier=earlier, residues=True)


def inputs_of(run: Run) -> list[Path]:
    own = [path for path in run.folder.rglob("*") if path.is_file() and "results" not in path.parts]
    earlier = [run.earlier[0][0] / name for name in ("embeddings/part-00000.parquet", "residues/part-00000.parquet")]
    return sorted([*own, *earlier, run.earlier[0][0] / "digests.xxh128"])


def test_every_mutation_is_refused_or_changes_nothing(run: Run) -> None:
    merge(run.config())
    truth = contents(run.config().outdir)
    shutil.rmtree(run.config().outdir)
    files = inputs_of(run)
    assert len(files) == 4 + 2 * 5 + 3
    rng, refused = random.Random(SEED), 0
    for number in range(MUTATIONS):
        path = files[number % len(files)]
        before = path.read_bytes()
        told = f"{path.relative_to(run.folder.parent)}: {damage(path, rng)} (mutation {number} of seed {SEED})"
        try:
            merge(run.config())
            assert contents(run.config().outdir) == truth, told
        except VirnucproError as error:
            refused += 1
            assert error.exit_code in (ExitCode.BAD_DATA, ExitCode.NO_INPUT), f"{told}: {error!r}"
            assert not run.config().outdir.exists(), told
        except Exception as error:
            raise AssertionError(f"{told}: {error!r}") from error
        finally:
            path.write_bytes(before)
            shutil.rmtree(run.config().outdir, ignore_errors=True)
    # Some write a byte over itself.
    assert refused > 0.9 * MUTATIONS


@pytest.mark.parametrize("residues", [False, True])
def test_a_shard_of_other_sequences_is_refused(tmp_path: Path, residues: bool) -> None:
    """Of a run with as many, with the same model and options: all fits but what was tokenised."""
    run = Run(tmp_path / "run", [0, 1, 2, 3], shards=2, residues=residues)
    other = Run(tmp_path / "other", [0, 1, 12, 13], shards=2, residues=residues)
    shutil.rmtree(run.folder / "shard-00001")
    shutil.copytree(other.folder / "shard-00001", run.folder / "shard-00001")
    with pytest.raises(VirnucproError, match="shard 1: the vector of unique_index 2 is of another sequence") as caught:
        merge(run.config())
    assert caught.value.exit_code == ExitCode.BAD_DATA


def test_shards_that_all_were_asked_for_something_else_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, 1], shards=2)
    for shard in (0, 1):
        run.rewrite_shard(shard, facts=metadata(layers=[5]))
    with pytest.raises(VirnucproError, match=r"layers is \[5\], but \[6\] in what the split asked for"):
        merge(run.config())


def test_residues_of_other_sequences_are_refused(tmp_path: Path) -> None:
    """Vectors that are right beside residues of another shard, told by the shard to be its own."""
    run = Run(tmp_path / "run", [0, 1], residues=True)
    other = Run(tmp_path / "other", [0, 12], residues=True)
    shard, foreign = (each.folder / "shard-00000" for each in (run, other))
    shutil.copyfile(foreign / "residues.parquet", shard / "residues.parquet")
    told = ShardSummary.read(shard / "summary.json")
    digest = ShardSummary.read(foreign / "summary.json").digests["residues.parquet"]
    replace(told, digests={**told.digests, "residues.parquet": digest}).write(shard / "summary.json")
    with pytest.raises(VirnucproError, match="the residues of unique_index 1 are of another sequence"):
        merge(run.config())


def test_what_was_merged_proves_itself(run: Run) -> None:
    merge(run.config())
    try:
        assert verify(run.config().outdir).rows == 7
    finally:
        shutil.rmtree(run.config().outdir)
