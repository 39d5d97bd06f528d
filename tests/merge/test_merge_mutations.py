"""No change of any input of the merge gives results that differ from the truth: it is refused, or changes nothing."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from merge.damage import damage
from merge.merge_runs import Run, key, metadata

from virnucpro.errors import DataError, ExitCode, LedgerError, VirnucproError
from virnucpro.merge.merge import merge
from virnucpro.merge.verify import verify
from virnucpro.output.contracts import RunSummary
from virnucpro.output.files import RUN_SUMMARY_FILE

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


@pytest.mark.faults(
    "bytes flipped, zeroed, cut, doubled or replaced in every input",
    "the merge",
    "65 or 66, or results equal to the last byte",
)
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


def test_shards_that_all_were_asked_for_something_else_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, 1], shards=2)
    for shard in (0, 1):
        run.rewrite_shard(shard, facts=metadata(layers=[5]))
    with pytest.raises(VirnucproError, match=r"layers is \[5\], but \[6\] in what the split asked for"):
        merge(run.config())


def test_what_was_merged_proves_itself(run: Run) -> None:
    merge(run.config())
    try:
        assert verify(run.config().outdir).rows == 7
    finally:
        shutil.rmtree(run.config().outdir)


@pytest.mark.faults("another run's shard under this one's name", "the merge", "65")
def test_the_shard_of_another_run_is_refused(tmp_path: Path) -> None:
    """The same folder names, unique indices and weights: only the sequences tell."""
    run = Run(tmp_path / "run", [0, 1, 2, 3], shards=2)
    other = Run(tmp_path / "other", [7, 8, 9, 10], shards=2)
    shutil.rmtree(run.folder / "shard-00001")
    shutil.copytree(other.folder / "shard-00001", run.folder / "shard-00001")
    with pytest.raises(LedgerError, match=r"ordinal 2 \(p2\) would get the vector of another sequence"):
        merge(run.config())
    assert not (run.folder / "results").exists()
    found = pq.read_table(other.folder / "shard-00001" / "embeddings.parquet")["sequence_key"].to_pylist()
    assert [each.hex() for each in found] == [key(9), key(10)]


def test_another_shards_files_are_refused(tmp_path: Path) -> None:
    for name, refusal in (
        ("embeddings.parquet", "another sequence|does not hold what was written|unique_index"),
        ("batches.parquet", "not as it was written"),
        ("gpu_metrics.parquet", "not as it was written"),
        ("residues/part-00000.parquet", "not as it was written"),
    ):
        run = Run(tmp_path / name.partition(".")[0], list(range(8)), shards=2, residues=True)
        shutil.copyfile(run.folder / "shard-00000" / name, run.folder / "shard-00001" / name)
        with pytest.raises((DataError, LedgerError), match=refusal):
            merge(run.config())


def test_the_summary_of_a_run_is_held_to_its_own_digest(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", [0, 1, None, 2, 0, 3, 4, 1, 5], shards=2)
    merge(run.config())
    path = run.folder / "results" / "metrics" / RUN_SUMMARY_FILE
    RunSummary.read(path)
    path.write_text(path.read_text().replace('"records": 9', '"records": 8'))
    with pytest.raises(DataError, match="not as it was written: its content has another digest"):
        RunSummary.read(path)
