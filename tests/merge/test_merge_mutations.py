"""A byte changed in any file that the merge is given: it is refused with 65, or changes nothing of the results."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from merge.merge_runs import Run, key

from virnucpro.errors import DataError, ExitCode, LedgerError
from virnucpro.merge.merge import merge
from virnucpro.output.files import RUN_SUMMARY_FILE

SEQUENCES = [0, 1, None, 2, 0, 3, 4, 1, 5]
FILES = [
    "manifest.parquet",
    "rejected.tsv",
    "split_summary.json",
    "model.json",
    *(f"shard-00001/{name}" for name in ("summary.json", "batches.parquet", "gpu_metrics.parquet")),
    "shard-00001/embeddings.parquet",
    "shard-00001/residues.parquet",
]


def make_run(folder: Path) -> Run:
    run = Run(folder, SEQUENCES, shards=2, residues=True)
    (folder / "rejected.tsv").write_text("file\tline\tordinal\tid\treason\na.fasta\t3\t2\tp2\tno residues\n")
    run.write_summary()
    return run


def content(results: Path) -> dict[str, object]:
    """What a finished result says, whatever the bytes that say it."""
    found: dict[str, object] = {}
    for path in sorted(results.rglob("*")):
        name = str(path.relative_to(results))
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            found[name] = (table, table.schema.metadata)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def mutate(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    place, change = chance.randrange(len(data)), chance.choice([1 << chance.randrange(8), chance.randrange(1, 256)])
    data[place] ^= change
    path.write_bytes(data)
    return f"byte {place} of {len(data)} xor {change}"


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_never_changes_a_finished_result(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    merge(run.config(outdir=tmp_path / "truth"))
    truth = content(tmp_path / "truth")
    path = run.folder / name
    whole = path.read_bytes()
    chance = random.Random(name)
    refused = 0
    for _ in range(60):
        what = mutate(path, chance)
        try:
            merge(run.config())
        except (DataError, LedgerError) as error:
            assert error.exit_code == ExitCode.BAD_DATA, (what, error)
            assert "\n" not in str(error), what
            refused += 1
        else:
            assert content(run.folder / "results") == truth, what
            shutil.rmtree(run.folder / "results")
        assert [each.name for each in run.folder.glob(".*")] == [], what
        path.write_bytes(whole)
    # Of the others most are padding, or what no reader of ours looks at.
    assert refused >= 40


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
        ("residues.parquet", "residues"),
    ):
        run = Run(tmp_path / name, list(range(8)), shards=2, residues=True)
        shutil.copyfile(run.folder / "shard-00000" / name, run.folder / "shard-00001" / name)
        with pytest.raises((DataError, LedgerError), match=refusal):
            merge(run.config())


def test_the_summary_of_a_run_is_held_to_its_own_digest(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    merge(run.config())
    from virnucpro.output.contracts import RunSummary

    path = run.folder / "results" / "metrics" / RUN_SUMMARY_FILE
    RunSummary.read(path)
    path.write_text(path.read_text().replace('"records": 9', '"records": 8'))
    with pytest.raises(DataError, match="not as it was written: its content has another digest"):
        RunSummary.read(path)
