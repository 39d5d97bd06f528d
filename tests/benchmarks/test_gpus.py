"""What bench_gpus.py concludes from metrics, traces, vectors and processes; the runs themselves need several GPUs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.measurements.bench_gpus import efficiencies, efficiency_checks
from benchmarks.measurements.gpus_checks import (
    Likeness,
    Task,
    by_device,
    compare_vectors,
    largest_gap,
    ledger_check,
    metrics_check,
    overlaps,
    rates,
    read_tasks,
    read_trace,
    task_rows,
    tries,
)
from benchmarks.measurements.gpus_kill import WRITTEN_SHARE, Killed, kill_one, shard_of, vectors_written
from benchmarks.measurements.gpus_runs import Run, repeat_fasta
from benchmarks.pages import draw_page

from virnucpro.fasta import read_records
from virnucpro.output.writer import ShardWriter
from virnucpro.shards import SPECIAL_TOKENS, cost_units, shard_count, shard_starts

DIM = 4


def write_metrics(folder: Path, batches: dict[int, list[tuple[float, float]]], devices: dict[int, str]) -> Path:
    """Metrics of shards that start a second before their first batch, end one after the last, 100 tokens a batch."""
    rows = [{"shard": shard, "start": start, "end": end} for shard, spans in batches.items() for start, end in spans]
    pq.write_table(pa.Table.from_pylist(rows), folder / "batches.parquet")
    shards = [
        {
            "shard": shard,
            "host": "node",
            "device_uuid": devices[shard],
            "started": spans[0][0] - 1,
            "finished": spans[-1][1] + 1,
            "tokens": 100 * len(spans),
        }
        for shard, spans in batches.items()
    ]
    pq.write_table(pa.Table.from_pylist(shards), folder / "shards.parquet")
    return folder


def test_the_rate_is_that_of_the_busiest_device_without_start_up(tmp_path: Path) -> None:
    batches = {0: [(11.0, 12.0), (12.0, 13.0)], 1: [(11.0, 12.5)], 2: [(20.0, 23.0), (23.0, 25.0)]}
    tasks = read_tasks(write_metrics(tmp_path, batches, {0: "GPU-a", 1: "GPU-b", 2: "GPU-b"}))
    assert {device: len(members) for device, members in by_device(tasks).items()} == {"node GPU-a": 1, "node GPU-b": 2}
    assert rates(tasks) == {
        "embedding_seconds": 6.5,
        "tokens_per_second": 500 / 6.5,
        "batches_wall_seconds": 14.0,
        "batches_wall_tokens_per_second": 500 / 14,
        "startup_seconds_mean": 1.0,
        "startup_seconds_max": 1.0,
    }
    assert task_rows("two", tasks, begun=10.0)[2]["first_batch"] == "10.000"
    assert task_rows("two", tasks, begun=10.0)[2]["device"] == "GPU-b"


def test_two_tasks_on_one_device_are_seen() -> None:
    first, second = Task(0, "node GPU-a", 0, 10), Task(1, "node GPU-a", 10, 20)
    assert overlaps([second, first, Task(2, "node GPU-b", 0, 20)]) == []
    inside = Task(3, "node GPU-a", 12, 13)
    assert overlaps([first, second, inside]) == [(second, inside)]
    long = Task(4, "node GPU-a", 0, 30)
    assert len(overlaps([long, first, second])) == 2


def test_the_largest_gap_is_looked_for_after_a_moment_in_one_shard(tmp_path: Path) -> None:
    batches = {0: [(0.0, 1.0), (5.0, 6.0), (6.5, 7.0)], 1: [(0.0, 1.0), (50.0, 51.0)]}
    metrics = write_metrics(tmp_path, batches, {0: "GPU-a", 1: "GPU-b"})
    assert largest_gap(metrics, 0) == 4.0
    assert largest_gap(metrics, 0, since=3.0) == 0.5
    assert largest_gap(metrics, 0, since=6.8) == 0.0


def test_the_tries_of_a_shard_are_read_in_order(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    lines = ["task_id\tname\tstatus\texit"]
    lines += ["10\tEMBED_SHARD (shard-00000, 2 sequences, 5 residues)\tCOMPLETED\t0"]
    lines += ["9\tEMBED_SHARD (shard-00001, 2 sequences, 5 residues)\tCOMPLETED\t0"]
    lines += ["3\tEMBED_SHARD (shard-00000, 2 sequences, 5 residues)\tFAILED\t137"]
    trace.write_text("\n".join(lines) + "\n")
    assert tries(read_trace(trace), 0) == [("FAILED", "137"), ("COMPLETED", "0")]
    assert tries(read_trace(trace), 2) == []


def write_results(folder: Path, vectors: np.ndarray, parts: list[int], group: int, name: str = "r") -> Path:
    """A results folder with vectors (rows, dim) in parts of so many rows, two shards, and all that counts them."""
    (folder / "embeddings").mkdir(parents=True)
    (folder / "metrics").mkdir()
    rows = len(vectors)
    table = pa.table(
        {
            "id": [f"{name}{row}" for row in range(rows)],
            "embedding": pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]),
            "shard": pa.array([int(2 * row >= rows) for row in range(rows)], pa.int32()),
        }
    )
    for number, part in enumerate(parts):
        path = folder / "embeddings" / f"part-{number:05d}.parquet"
        pq.write_table(table.slice(sum(parts[:number]), part), path, row_group_size=group)
    ledger = {"status": ["embedded"] * rows, "unique_index": list(range(rows))}
    pq.write_table(pa.table(ledger), folder / "manifest.parquet")
    counts = {"records": rows, "embedded": rows, "rows": rows, "rejected": 0, "duplicate": 0, "reused": 0}
    (folder / "metrics" / "run_summary.json").write_text(json.dumps(counts))
    return folder


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(6).standard_normal((20, DIM)).astype(np.float32)


def test_equal_vectors_are_found_so_however_the_files_are_cut(tmp_path: Path, vectors: np.ndarray) -> None:
    one = write_results(tmp_path / "one", vectors[:14], [3, 11], 4)
    other = write_results(tmp_path / "other", vectors, [9, 1, 10], 5)
    found = compare_vectors(one, other)
    assert {shard: (likeness.rows, likeness.all_equal) for shard, likeness in found.items()} == {
        0: (7, True),
        1: (7, True),
    }
    with pytest.raises(ValueError, match="fewer rows"):
        compare_vectors(other, one)


def test_one_bit_is_seen(tmp_path: Path, vectors: np.ndarray) -> None:
    changed = vectors.copy()
    changed[3, 2] = np.nextafter(changed[3, 2], np.float32(2))
    changed[17, 0] = -0.0
    vectors[17, 0] = 0.0
    found = compare_vectors(
        write_results(tmp_path / "one", vectors, [20], 20), write_results(tmp_path / "other", changed, [20], 20)
    )
    assert (found[0].equal, found[1].equal) == (9, 9)
    total = Likeness.sum(found.values())
    assert (total.rows, total.equal, total.all_equal) == (20, 18, False)
    assert 0.999999 < total.worst_cosine <= 1.0
    assert not Likeness().all_equal


def test_other_records_are_no_comparison(tmp_path: Path, vectors: np.ndarray) -> None:
    one = write_results(tmp_path / "one", vectors, [20], 20)
    with pytest.raises(ValueError, match="other records"):
        compare_vectors(one, write_results(tmp_path / "other", vectors, [20], 20, name="x"))


def test_a_ledger_that_lost_or_doubled_a_row_is_not_whole(tmp_path: Path, vectors: np.ndarray) -> None:
    assert ledger_check(write_results(tmp_path / "whole", vectors, [12, 8], 5), 20).holds
    assert not ledger_check(write_results(tmp_path / "short", vectors, [12, 7], 5), 20).holds
    doubled = write_results(tmp_path / "doubled", vectors, [20], 20)
    indices = [0, *range(19)]
    pq.write_table(pa.table({"status": ["embedded"] * 20, "unique_index": indices}), doubled / "manifest.parquet")
    assert not ledger_check(doubled, 20).holds


@pytest.mark.parametrize(("copies", "shards"), [(4, 2), (4, 4), (12, 3)])
def test_every_shard_gets_whole_copies(copies: int, shards: int, tmp_path: Path) -> None:
    lengths = [1, 1500, 7, 1022, 33]
    (tmp_path / "in.fasta").write_text("".join(f">p{n} some\n{'M' * length}\n" for n, length in enumerate(lengths)))
    given = repeat_fasta(tmp_path / "in.fasta", copies, shards, tmp_path / "out.fasta")
    records = list(read_records(given.fasta))
    assert given.records == len(records) == len({record.id for record in records}) == copies * len(lengths)
    kept = np.array([min(len(record.sequence), 1022) for record in records])
    assert shard_count(len(kept), -(-int(kept.sum()) // given.shard_residues), 1) == shards
    costs = cost_units(kept + SPECIAL_TOKENS, 1280)
    starts = shard_starts([costs], len(kept), int(costs.sum()), shards)
    assert starts.tolist() == [k * len(kept) // shards for k in range(shards)]


def test_only_the_task_itself_is_taken_for_it() -> None:
    program = ["/env/bin/python3", "/project/bin/embed_shard.py", "--shard", "shard-00012.fasta", "--model", "m"]
    assert shard_of(program) == 12
    assert shard_of(["bash", *program[1:]]) is None
    assert shard_of(["/env/bin/python3", "-c", "from multiprocessing.spawn import spawn_main"]) is None
    assert shard_of(["/env/bin/python3", "/project/bin/split_fasta.py", "--shard", "x"]) is None
    assert shard_of([]) is None


def test_vectors_are_counted_while_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    this = psutil.Process()
    assert vectors_written(this, 3, DIM) == (0, 0)
    with ShardWriter(Path("shard-00003"), {"embedding": DIM}, "float32", 100, 9, {}) as writer:
        assert vectors_written(this, 3, DIM) == (0, 9)
        writer.write(np.array([108, 101]), {"embedding": np.ones((2, DIM), np.float32)}, 0, np.zeros((2, 16), np.uint8))
        assert vectors_written(this, 3, DIM) == (2, 9)
    assert vectors_written(this, 3, DIM) == (0, 0)


TASK = """
import pathlib, sys, time
import numpy as np
shard = pathlib.Path(sys.argv[2]).stem
folder = pathlib.Path(f".{shard}.partial")
folder.mkdir()
rows = np.zeros((100, 4), np.float32)
rows[: int(sys.argv[3])] = 1
(folder / ".embedding.scratch").write_bytes(rows.tobytes())
time.sleep(20)
"""


@pytest.mark.parametrize("written", [int(100 * WRITTEN_SHARE), 0])
def test_a_task_is_killed_once_all_have_written(written: int, tmp_path: Path) -> None:
    (tmp_path / "embed_shard.py").write_text(TASK)
    tasks = [f"{sys.executable} embed_shard.py --shard shard-0000{shard}.fasta" for shard in range(2)]
    # In place of Nextflow: ends soon after its tasks, or after two seconds.
    script = f"{tasks[0]} 50 & {tasks[1]} {written} & sleep 3; kill %1 %2 2>/dev/null; wait"
    with subprocess.Popen(["bash", "-c", f"set -m; {script}"], cwd=tmp_path) as nextflow:
        killed = kill_one(nextflow, 2, DIM)
    if not written:
        assert killed is None
        return
    assert killed is not None
    assert (killed.shard, killed.rows, killed.others) == (0, 50, (1,))
    assert killed.started < killed.at
    assert killed.task("node").device == f"node {killed.device}"


def test_a_saved_page_is_drawn_from_the_same_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = ([{"id": "verdict", "data": "<p>Bottleneck: none</p>"}], {"Model": "esm2"})
    given = []

    def render(sections: object, outdir: Path, header: object) -> Path:
        given.append((sections, header))
        (outdir / "page.html").write_text("drawn")
        return outdir / "page.html"

    monkeypatch.setattr(draw_page, "render", render)
    draw_page.save_content(content, tmp_path / "page.json.gz")
    assert draw_page.main([str(tmp_path / "page.json.gz"), str(tmp_path / "two" / "report.html")]) == 0
    assert given == [content]
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["report.html"]


def test_efficiency_is_a_share_of_as_many_times_one_gpu(tmp_path: Path) -> None:
    def run(name: str, gpus: int, records: int, seconds: float, joules: float | None) -> Run:
        folder = tmp_path / name
        metrics = folder / "results" / "metrics"
        metrics.mkdir(parents=True)
        spans = [(10.0 + batch, 11.0 + batch) for batch in range(4)]
        write_metrics(metrics, dict.fromkeys(range(gpus), spans), {shard: f"GPU-{shard}" for shard in range(gpus)})
        summary = {"energy_joules": joules, "tokens": 400 * gpus}
        (metrics / "run_summary.json").write_text(json.dumps(summary))
        return Run(name, folder, gpus, 9.0, seconds, records)

    one, four = run("one", 1, 50, 20.0, 40.0), run("four", 4, 200, 25.0, 176.0)
    assert efficiencies(four, one) == {
        "speed_up": 4.0,
        "efficiency": 1.0,
        "whole_efficiency": pytest.approx(0.8),
        "energy_ratio": pytest.approx(1.1),
    }
    assert [check.holds for check in efficiency_checks(efficiencies(four, one), four, one)] == [True, False, False]
    two = run("two", 2, 50, 20.0, None)
    assert [check.holds for check in efficiency_checks(efficiencies(two, one), two, one)] == [True, False]


def test_what_ended_is_not_run_again(tmp_path: Path) -> None:
    run = Run("4", tmp_path, 4, 9.0, 2.5, 100)
    assert Run.kept(tmp_path) is None
    run.keep()
    assert Run.kept(tmp_path) == run
    killed = Killed(1, "GPU-a", 1.5, 3.5, 12, (0, 2))
    killed.keep(tmp_path / "killed.json")
    assert Killed.kept(tmp_path / "killed.json") == killed


def joined_rows(results: Path, energy: list[float | None], total: float) -> Path:
    (results / "embeddings").mkdir(parents=True)
    (results / "metrics").mkdir()
    rows = {"shard": [0, 1], "batch": [0, 0], "device_name": ["H100", "H100"], "energy_joules": energy}
    rows |= {"device_utilization": [99.0, 98.0], "batch_tokens_per_second": [1e5, 1e5]}
    pq.write_table(pa.table(rows), results / "embeddings" / "part-00000.parquet")
    (results / "metrics" / "run_summary.json").write_text(json.dumps({"energy_joules": total}))
    return results


def test_rows_must_know_their_metrics_and_share_the_energy(tmp_path: Path) -> None:
    assert metrics_check(joined_rows(tmp_path / "within", [40.0, 60.0], 101.0)).holds
    assert not metrics_check(joined_rows(tmp_path / "beyond", [40.0, 60.0], 103.0)).holds
    assert not metrics_check(joined_rows(tmp_path / "null", [100.0, None], 100.0)).holds
