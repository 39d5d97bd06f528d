"""An output folder is one run's: held while it runs, older results kept until the new ones are whole."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from launch import MODEL, Launch, copy_project, launch, launch_command, launch_environment

#: Files of a finished run of several parts, as its digests name them.
OLDER = (
    "embeddings/part-00000.parquet",
    "embeddings/part-00001.parquet",
    "manifest.parquet",
    "metrics/run_summary.json",
    "metrics/shards.parquet",
    "rejected.tsv",
    "residues/part-00000.parquet",
    "ro-crate-metadata.json",
)
BESIDE = ("digests.xxh128", "neighbours.parquet", "report/multiqc_report.html")
#: What a stub run leaves.
NEW = [
    "digests.xxh128",
    "embeddings/part-00000.parquet",
    "manifest.parquet",
    "metrics/run_summary.json",
    "rejected.tsv",
    "report/multiqc_report.html",
]


@pytest.fixture
def stub(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "in.fasta").write_text(">a\nMKV\n")
    (tmp_path / "model.pt").touch()
    return ("-stub", "--input", f"{tmp_path}/in.fasta", "--model", f"{tmp_path}/model.pt")


def older_results(folder: Path) -> Path:
    """Results of an earlier run, and two files of the user beside them."""
    for name in (*OLDER, *BESIDE, "notes.txt", "figures/map.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"older {name}")
    lines = "".join(f"{hashlib.md5(name.encode()).hexdigest()}  {name}\n" for name in OLDER)
    (folder / "digests.xxh128").write_text(lines)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Files by name, less Nextflow's own reports and what runs keep for themselves."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: text for name, text in named.items() if name.split("/")[0] not in ("pipeline_info", ".virnucpro")}


def computed(run: Launch) -> bool:
    """Whether any task was begun."""
    return any((run.folder / "work").glob("*/*/.command.sh"))


def begin(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a run, and come back once it holds its output folder and has begun its trace, in whichever order."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            launch_command(*arguments), cwd=folder, env=launch_environment(), stdout=log, stderr=log
        )
    note, trace = (folder / "results" / name for name in (".virnucpro/holder.json", "pipeline_info/trace.txt"))
    end = time.monotonic() + 120
    while not (note.exists() and note.stat().st_size and trace.exists()):
        assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.05)
    return process


@pytest.mark.faults(
    "results of another run in the outdir", "`nextflow run`", "2 before anything is computed; they are as they were"
)
def test_older_results_are_refused_before_anything_is_computed(tmp_path: Path, stub: tuple[str, ...]) -> None:
    before = contents(older_results(tmp_path / "results"))
    run = launch(tmp_path, *stub)
    assert run.code == 2
    assert f"--outdir {run.results}: holds results of another run (embeddings/part-00000.parquet)" in run.output
    assert "replace them with --overwrite" in run.output
    assert not computed(run)
    assert contents(run.results) == before


def test_overwriting_leaves_nothing_of_the_older_run_and_all_of_the_users(
    tmp_path: Path, stub: tuple[str, ...]
) -> None:
    older_results(tmp_path / "results")
    run = launch(tmp_path, *stub, "--overwrite")
    assert run.code == 0, run.output
    assert run.published() == sorted([*NEW, "figures/map.png", "notes.txt"])
    assert not [text for name, text in contents(run.results).items() if name in NEW and text.startswith(b"older")]
    assert (run.results / "notes.txt").read_text() == "older notes.txt"
    assert sorted(path.name for path in (run.results / ".virnucpro").iterdir()) == ["lock", "published.json"]

    other = launch(tmp_path / "other", *stub, "--outdir", str(run.results))
    assert (other.code, computed(other)) == (2, False)
    assert "holds results of another run (digests.xxh128)" in other.output

    again = launch(tmp_path, *stub, "-resume")
    assert again.code == 0, again.output
    assert again.published() == run.published()


@pytest.mark.one_engine
@pytest.mark.parametrize("name", ["embeddings/notes.txt", "metrics/run_summary.json", "report/figure.png"])
def test_a_file_of_the_user_where_results_come_is_never_replaced(
    name: str, tmp_path: Path, stub: tuple[str, ...]
) -> None:
    path = tmp_path / "results" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    run = launch(tmp_path, *stub, "--overwrite")
    assert (run.code, computed(run)) == (2, False)
    assert f"{name} is of no run that is known here" in run.output
    assert contents(run.results) == {name: b"mine"}


@pytest.mark.one_engine
def test_of_two_runs_the_second_is_told_at_once_and_one_that_was_killed_holds_nothing(
    tmp_path: Path, stub: tuple[str, ...]
) -> None:
    results = tmp_path / "results"
    first = begin(tmp_path, *stub)
    try:
        holder = json.loads((results / ".virnucpro" / "holder.json").read_text())
        trace = (results / "pipeline_info" / "trace.txt").read_text()
        first.send_signal(signal.SIGSTOP)
        second = launch(tmp_path / "second", *stub, "--overwrite", "--outdir", str(results))
        told = f"held by another run, {holder['run']} of {holder['user']} on {holder['host']} "
        assert (second.code, computed(second)) == (2, False)
        assert f"{told}(process {holder['process']}, since {holder['since']})" in second.output
        assert (results / "pipeline_info" / "trace.txt").read_text().startswith(trace)
        assert json.loads((results / ".virnucpro" / "holder.json").read_text()) == holder
    finally:
        first.kill()
        first.wait()

    assert (results / ".virnucpro" / "holder.json").exists()
    third = launch(tmp_path, *stub)
    assert third.code == 0, third.output
    assert sorted(contents(results)) == NEW
    assert not (results / ".virnucpro" / "holder.json").exists()
    assert third.statuses()["MERGE_EMBEDDINGS"] == {"COMPLETED"}


@pytest.mark.one_engine
@pytest.mark.faults(
    "a run of another machine holds the outdir", "`nextflow run`", "2 before anything is computed, with who holds it"
)
def test_a_run_of_another_machine_is_believed(tmp_path: Path, stub: tuple[str, ...]) -> None:
    note = tmp_path / "results" / ".virnucpro" / "holder.json"
    note.parent.mkdir(parents=True)
    facts = {"run": "mad_euler", "user": "ann", "host": "node17", "process": 7, "since": "2026-01-02T03:04:05Z"}
    note.write_text(json.dumps(facts))
    run = launch(tmp_path, *stub, "--overwrite")
    assert (run.code, computed(run)) == (2, False)
    assert "held by another run, mad_euler of ann on node17 (process 7, since 2026-01-02T03:04:05Z)" in run.output
    assert f"if it is gone remove {note}" in run.output
    assert json.loads(note.read_text()) == facts


@pytest.mark.one_engine
@pytest.mark.faults(
    "a disk that fills while results are published",
    "`nextflow run`",
    "74; older results as they were, no claim of new ones; `-resume` publishes",
)
def test_a_full_disk_leaves_the_older_results_and_no_claim_of_new_ones(
    tmp_path: Path, small_disk: Path, stub: tuple[str, ...]
) -> None:
    project = copy_project(tmp_path / "project")
    merge = project / "modules" / "merge_embeddings" / "main.nf"
    large = "head -c 400000 /dev/zero > results/embeddings/part-00000.parquet\n    touch"
    merge.write_text(merge.read_text().replace("touch results/embeddings/part-00000.parquet", large))
    before = contents(older_results(small_disk / "out"))
    (small_disk / "other").write_bytes(bytes(700_000))

    options = (*stub, "--overwrite", "--outdir", str(small_disk / "out"))
    full = launch(tmp_path / "run", *options, project=project)
    assert full.code == 74, full.output
    assert "No results: embeddings/part-00000.parquet: No space left on device" in full.last_lines
    assert contents(small_disk / "out") == before
    assert sorted(path.name for path in (small_disk / "out" / ".virnucpro").iterdir()) == ["lock"]

    (small_disk / "other").unlink()
    # There is still no room for Nextflow's own reports.
    again = launch(tmp_path / "run", *options, "-resume", project=project, may_warn=True)
    assert again.code == 0, again.output
    assert sorted(contents(small_disk / "out")) == sorted([*NEW, "figures/map.png", "notes.txt"])
    assert (small_disk / "out" / "embeddings" / "part-00000.parquet").stat().st_size == 400_000


@pytest.mark.one_engine
def test_results_of_a_shorter_run_hold_none_of_a_longer_one(tmp_path: Path) -> None:
    proteins = [">a\nMKVLAAGIV\n", ">b\nMSTNPKPQRK\n", ">c\nMGARASVLSG\n"]
    common = ("--model", str(MODEL), "--per_residue", "--report", "false", "--input", f"{tmp_path}/in.fasta")
    for count, options in ((3, ()), (1, ("--overwrite",))):
        (tmp_path / "in.fasta").write_text("".join(proteins[:count]))
        run = launch(tmp_path / str(count), *common, "--outdir", str(tmp_path / "results"), *options)
        assert run.code == 0, run.output
        for folder in ("embeddings", "residues"):
            assert pq.read_table(tmp_path / "results" / folder).num_rows == count
    verify = [str(MODEL.parents[1] / "bin" / "verify.py"), str(tmp_path / "results")]
    assert subprocess.run(verify, capture_output=True, text=True).stdout.count(": whole: ") == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "withName: MERGE_EMBEDDINGS { errorStrategy = 'ignore'; beforeScript = 'exit 65' }",
            "a failed task was passed",
        ),
        ("publishDir = 'elsewhere'", "no file was published, as publishDir of a configuration of yours has it"),
    ],
)
def test_settings_of_a_site_that_lose_results_are_named(
    setting: str, message: str, tmp_path: Path, stub: tuple[str, ...]
) -> None:
    (tmp_path / "site.config").write_text(f"process {{ {setting} }}\n")
    older = contents(older_results(tmp_path / "results"))
    run = launch(tmp_path, *stub, "--overwrite", "-c", "site.config", may_warn=True)
    assert (run.code, contents(run.results)) == (74, older), run.output
    assert f"No results: {message}" in run.last_lines
