"""verify.py proves finished results from their own files, and names what is not as it was written."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from merge.damage import damage
from merge.merge_runs import Run

from virnucpro.errors import DataError, ExitCode, InputMissingError, LedgerError
from virnucpro.merge.merge import merge
from virnucpro.merge.verify import verify
from virnucpro.output.digest_list import write_digests
from virnucpro.output.ledger import LedgerWriter
from virnucpro.output.schema import SAMPLE

BIN = Path(__file__).parents[2] / "bin"
MUTATIONS_OF_EACH_FILE = 12


def program(*results: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BIN / "verify.py"), *map(str, results)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of several parts, with residues, duplicates, and a record that was rejected."""
    run = Run(tmp_path_factory.mktemp("finished"), [5, 6, 7, 5, None, 8], shards=2, residues=True)
    merge(run.config(part_bytes=1, row_group_rows=2))
    return run.config().outdir


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "results")


def test_whole_results_are_proved(finished: Path) -> None:
    done = program(finished)
    assert done.returncode == 0, done.stderr
    digest = ("ab" * 32)[:12]
    files = sum(path.is_file() for path in finished.rglob("*")) - 1
    assert done.stdout == (
        f"{finished}: whole: {files} files, 6 records, 5 vectors of tiny (weights sha256 {digest}), 1 rejected\n"
    )


@pytest.mark.parametrize(
    ("sequences", "options"),
    [([0, 1], {}), ([None, 3], {}), ([4, 4, 4], {"residues": True}), ([0, 1], {"dtype": "float16"})],
)
def test_other_results_are_proved_too(tmp_path: Path, sequences: list[int | None], options: dict[str, object]) -> None:
    run = Run(tmp_path, sequences, **options)  # type: ignore[arg-type]
    merge(run.config())
    assert verify(run.config().outdir).rows == len(run.kept())


def test_reused_vectors_are_proved(tmp_path: Path) -> None:
    first = Run(tmp_path / "first", [3, 4, 3, 5], residues=True)
    merge(first.config())
    run = Run(tmp_path / "run", [3, 3, 9, 5], earlier=[(first.config().outdir, first.kept())], residues=True)
    merge(run.config())
    assert verify(run.config().outdir).summary.reused == 3


def add_samples(run: Run, samples: list[str]) -> None:
    """Give each record of the ledger its sample."""
    path = run.folder / "manifest.parquet"
    table = pq.read_table(path)
    with LedgerWriter(path, optional=[SAMPLE]) as ledger:
        ledger.write({name: table[name] for name in table.column_names} | {"sample": pa.array(samples)})
    run.write_summary()


def test_samples_of_more_records_than_are_read_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path, [None, *[4, 5] * 35_000])
    samples = ["lake" if i % 7 else f"gut {i // 30_000}" for i in range(70_001)]
    add_samples(run, samples)
    merge(run.config())
    results = run.config().outdir
    assert pq.read_table(results / "embeddings")["sample"].to_pylist() == samples[1:]
    assert verify(results).rows == 70_000


def test_a_sample_that_is_not_the_ledgers(tmp_path: Path) -> None:
    run = Run(tmp_path, [5, 6])
    add_samples(run, ["lake", "gut"])
    merge(run.config())
    results = run.config().outdir
    path = results / "embeddings" / "part-00000.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("sample")
    changed = pa.array(["gut", "gut"]).dictionary_encode().cast(table.schema.field("sample").type)
    pq.write_table(table.set_column(place, table.schema.field("sample"), changed), path)
    write_digests(results, {}, {})
    with pytest.raises(LedgerError, match="rows from 0 on are not the records of the ledger"):
        verify(results)


@pytest.mark.faults("any byte of finished results changed", "`verify.py`", "65, with the file")
def test_every_byte_of_every_file_counts(results: Path) -> None:
    rng = random.Random(16)
    for path in sorted(path for path in results.rglob("*") if path.is_file()):
        before = path.read_bytes()
        for _ in range(MUTATIONS_OF_EACH_FILE):
            told = damage(path, rng)
            if path.read_bytes() != before:
                with pytest.raises((DataError, InputMissingError)):
                    print(path, told, verify(results))
            path.write_bytes(before)
    verify(results)


def test_a_damaged_file_is_told_in_one_line(results: Path) -> None:
    part = results / "embeddings" / "part-00001.parquet"
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    part.write_bytes(content)
    done = program(results)
    assert (done.returncode, done.stdout) == (ExitCode.BAD_DATA, "")
    assert done.stderr == (
        f"verify.py: error: {part}: not as it was written, a byte was changed or the file replaced; run again, or "
        "fetch the results anew from where they are whole\n"
    )


def test_each_of_several_results_has_its_line_and_the_highest_code_is_the_end(results: Path, tmp_path: Path) -> None:
    whole, missing = shutil.copytree(results, tmp_path / "whole"), tmp_path / "missing"
    (results / "manifest.parquet").unlink()
    for given, code in (((results, whole), ExitCode.BAD_DATA), ((missing, results, whole), ExitCode.NO_INPUT)):
        done = program(*given)
        assert done.returncode == code, done.stderr
        (line,) = done.stdout.splitlines()
        assert line.startswith(f"{whole}: whole: ")
        wrong = done.stderr.splitlines()
        assert len(wrong) == len(given) - 1
        assert all(line.startswith(f"verify.py: error: {each}/") for line, each in zip(wrong, given, strict=False))


def test_results_that_are_not_there(tmp_path: Path) -> None:
    done = program(tmp_path)
    assert done.returncode == ExitCode.NO_INPUT and len(done.stderr.splitlines()) == 1
    assert f"{tmp_path}/digests.xxh128: not there; give the output folder of a finished run" in done.stderr
    assert program().returncode == ExitCode.USAGE


@pytest.mark.parametrize("name", ["embeddings/part-00000.parquet", "manifest.parquet", "metrics/shards.parquet"])
def test_a_missing_file_is_named(results: Path, name: str) -> None:
    (results / name).unlink()
    with pytest.raises(DataError, match=f"{name}: missing"):
        verify(results)


def test_a_part_of_another_run_beside_these_is_named(results: Path) -> None:
    parts = sorted((results / "embeddings").iterdir())
    shutil.copyfile(parts[0], results / "embeddings" / "part-00099.parquet")
    with pytest.raises(DataError, match=r"part-00099\.parquet: not of this run"):
        verify(results)


def test_every_file_counts_that_the_list_no_longer_names(results: Path) -> None:
    (results / "ro-crate-metadata.json").touch()
    write_digests(results, {}, {})
    lines = (results / "digests.xxh128").read_text().splitlines(keepends=True)
    assert len(lines) > 8
    for line in lines:
        (results / "digests.xxh128").write_text("".join(each for each in lines if each != line))
        with pytest.raises(DataError, match=line.split()[1]):
            verify(results)


def _rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def _of(column: str, values: Callable[[list[object]], list[object]]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(column)
        kind = table.schema.field(column)
        return table.set_column(place, kind, pa.array(values(table[column].to_pylist()), kind.type))

    return change


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("embeddings/part-00000.parquet", lambda table: table.slice(1), "are not the records of the ledger"),
        ("embeddings/part-00000.parquet", lambda table: table.take([1, 0]), "are not the records of the ledger"),
        ("embeddings/part-00000.parquet", _of("id", lambda v: ["x", *v[1:]]), "are not the records of the ledger"),
        ("embeddings/part-00002.parquet", lambda table: table.slice(0, 0), "has more records than the 4 rows"),
        ("embeddings/part-00000.parquet", lambda table: table.replace_schema_metadata(), "no 'virnucpro' metadata"),
        ("manifest.parquet", _of("status", lambda v: ["rejected", *v[1:]]), "are not the records of the ledger"),
        ("manifest.parquet", lambda table: table.slice(0, 5), "are not the records of the ledger"),
        (
            "residues/part-00000.parquet",
            lambda table: table.slice(0, 0),
            "residues of 2 sequences, but the ledger has 4",
        ),
        ("residues/part-00000.parquet", _of("length", lambda v: [99, *v[1:]]), "cannot have seen"),
    ],
)
def test_files_that_do_not_fit_together_are_told_even_with_their_digests(
    results: Path, name: str, change: Callable[[pa.Table], pa.Table], match: str
) -> None:
    _rewrite(results / name, change)
    write_digests(results, {}, {})
    with pytest.raises(DataError, match=match):
        verify(results)


@pytest.mark.parametrize(("old", "new"), [("\t4\t", "\t3\t"), ("a.fasta", "a.fasta\tb")])
def test_rejected_records_are_those_of_the_ledger(results: Path, old: str, new: str) -> None:
    text = (results / "rejected.tsv").read_text()
    (results / "rejected.tsv").write_text(text.replace(old, new))
    write_digests(results, {}, {})
    with pytest.raises(DataError, match="names other records than the ledger rejects"):
        verify(results)
