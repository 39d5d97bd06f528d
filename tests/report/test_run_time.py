"""The run's steps on one clock, from the shards' own clocks and Nextflow's trace, and what they cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from synthetic_results import RUN_BEGAN, Run, make_results

from virnucpro.report.report import page_content
from virnucpro.report.run_time import FAILED, MOST_DEVICES, STARTUP, WORK, Span, run_cost, run_time
from virnucpro.report.run_time_section import in_words, run_time_section
from virnucpro.report.trace import EMBED, Task, read_tasks

COLUMNS = "task_id\thash\tnative_id\tname\tstatus\texit\tsubmit\tduration\trealtime"
SHARDS = [(RUN_BEGAN, RUN_BEGAN + 95.0), (RUN_BEGAN + 100, RUN_BEGAN + 190.0)]


def row(name: str, begin: float, duration: str, status: str = "COMPLETED", hours: float = 0) -> str:
    """A line of a trace that was written ``hours`` east of Greenwich."""
    submit = datetime.fromtimestamp(RUN_BEGAN + begin, UTC) + timedelta(hours=hours)
    return f"1\tab/cdef01\t77\t{name}\t{status}\t0\t{submit:%Y-%m-%d %H:%M:%S}.000\t{duration}\t1s"


def trace(folder: Path, *rows: str, columns: str = COLUMNS) -> Path:
    path = folder / "trace.txt"
    path.write_text("\n".join((columns, *rows)) + "\n")
    return path


def whole(hours: float = 0) -> list[str]:
    return [
        row("DESCRIBE_MODEL (m)", -6, "900ms", hours=hours),
        row("SPLIT_FASTA (a b.fasta, 1 MB)", -5, "3.5s", hours=hours),
        row("EMBED_SHARD (shard-00000, 9 sequences)", -1, "1m 37s", hours=hours),
        row("EMBED_SHARD (shard-00001, 9 sequences)", 99, "1m 32s", hours=hours),
        row("MERGE_EMBEDDINGS (shards: 2)", 192, "2h 1m 3s", hours=hours),
    ]


def shard(number: int, began: float, ended: float, **facts: Any) -> dict[str, Any]:
    given = {"started": RUN_BEGAN + began, "finished": RUN_BEGAN + ended, "wall_seconds": ended - began}
    return {"shard": number, "device_name": "L4", "device_uuid": "GPU-1", "host": "a", **given, **facts}


@pytest.mark.parametrize("hours", [0, -7, 5.75, 12])
def test_the_trace_is_read_on_the_shards_clock_wherever_it_was_written(hours: float, tmp_path: Path) -> None:
    tasks = read_tasks(trace(tmp_path, *whole(hours)), SHARDS)
    assert [(task.process, round(task.begin - RUN_BEGAN, 3), round(task.end - RUN_BEGAN, 3)) for task in tasks] == [
        ("DESCRIBE_MODEL", -6, -5.1),
        ("SPLIT_FASTA", -5, -1.5),
        (EMBED, -1, 96),
        (EMBED, 99, 191),
        ("MERGE_EMBEDDINGS", 192, 192 + 7263),
    ]


def test_the_trace_of_another_run_tells_nothing(tmp_path: Path) -> None:
    path = trace(tmp_path, *whole())
    assert read_tasks(path, SHARDS[:1]) == []  # another number of shards
    assert read_tasks(path, [(RUN_BEGAN - 400, RUN_BEGAN - 300), SHARDS[1]]) == []  # one that ran before its task
    assert read_tasks(path, []) == []
    assert read_tasks(tmp_path / "absent", SHARDS) == []


def test_a_trace_with_a_sites_own_columns_or_torn_lines_tells_what_it_can(tmp_path: Path) -> None:
    assert read_tasks(trace(tmp_path, "1\tSPLIT_FASTA", columns="task_id\tname"), []) == []
    torn = [
        *whole(),
        "6\tab",
        row("REPORT", 200, "-"),
        row("REPORT", 200, "1s", "ABORTED"),
        row("", 1, "1s"),
        "\x00\xff",
    ]
    assert len(read_tasks(trace(tmp_path, *torn), SHARDS)) == 5


def test_steps_and_devices_are_set_on_one_clock(tmp_path: Path) -> None:
    shards = [shard(0, 0, 95, startup_seconds=10.0), shard(1, 100, 190, startup_seconds=5.0)]
    tasks = read_tasks(trace(tmp_path, *whole()[:4], row("MERGE_EMBEDDINGS (2)", 192, "8s")), SHARDS)
    found = run_time(shards, tasks)
    assert found is not None and found.traced
    assert [step.name for step in found.steps] == ["DESCRIBE_MODEL", "SPLIT_FASTA", f"{EMBED}: L4", "MERGE_EMBEDDINGS"]
    assert (found.seconds, found.paused) == (206, 0)
    assert found.steps[2].spans == (
        Span(6, 16, STARTUP),
        Span(16, 101, WORK),
        Span(106, 111, STARTUP),
        Span(111, 196, WORK),
    )
    assert (found.steps[2].seconds, found.steps[2].tasks) == (185, 2)


def test_without_a_trace_only_the_shards_are_told_and_the_page_says_so() -> None:
    found = run_time([shard(0, 0, 95)], [])
    assert found is not None and not found.traced
    assert [step.spans for step in found.steps] == [(Span(0, 95, WORK),)]
    section = run_time_section(found, None)
    assert section is not None
    assert "95 s from the first shard's start" in section["description"] and "trace.txt" in section["description"]
    assert "at work" in section["data"] and "start-up" not in section["data"]
    assert run_time([], []) is None and run_time_section(None, None) is None
    assert run_time([shard(0, 0, 1, started=None)], []) is None


def test_a_night_before_a_resume_is_left_out() -> None:
    night = 8 * 3600.0
    shards = [shard(0, 0, 100), shard(1, night, night + 100)]
    tasks = [Task("MERGE_EMBEDDINGS", RUN_BEGAN + night + 110, RUN_BEGAN + night + 120, False)]
    found = run_time(shards, tasks)
    assert found is not None
    assert (found.seconds, found.paused) == (220, night - 100)
    assert found.steps[0].spans == (Span(0, 100, WORK), Span(100, 200, WORK))
    assert found.steps[1].spans == (Span(210, 220, WORK),)
    section = run_time_section(found, None)
    assert section is not None and "7 h 58 min in which nothing ran are left out" in section["description"]


def test_failed_attempts_have_a_row_of_their_own() -> None:
    tasks = [Task(EMBED, RUN_BEGAN - 50, RUN_BEGAN - 10, True), Task(EMBED, RUN_BEGAN, RUN_BEGAN + 95, False)]
    found = run_time([shard(0, 0, 95)], tasks)
    assert found is not None
    assert [(step.name, step.spans[0].kind) for step in found.steps] == [
        (f"{EMBED}, failed", FAILED),
        (f"{EMBED}: L4", WORK),
    ]


def test_many_devices_and_many_shards_stay_readable() -> None:
    devices = [shard(n, 0, 50, device_uuid=f"GPU-{n}") for n in range(MOST_DEVICES + 3)]
    found = run_time(devices, [])
    assert found is not None
    assert len(found.steps) == MOST_DEVICES and found.more_devices == 3
    assert found.steps[1].name == f"{EMBED}, device 2 of 19: L4"
    section = run_time_section(found, run_cost(devices))
    assert section is not None and "3 more devices are not drawn" in section["data"]
    many = run_time([shard(n, 10 * n, 10 * n + 9, startup_seconds=1.0) for n in range(5_000)], [])
    assert many is not None
    assert len(many.steps[0].spans) == 1 and many.steps[0].tasks == 5_000


def test_hours_and_energy_are_sums_and_energy_only_where_all_know_it() -> None:
    known = {"energy_joules": 1.8e6, "startup_energy_joules": 3.6e5, "startup_seconds": 36.0}
    shards = [shard(0, 0, 1800, **known), shard(1, 0, 1800, **known)]
    cost = run_cost(shards)
    assert cost is not None and cost.on_gpu
    assert (cost.hours, cost.startup_hours, cost.kwh, cost.startup_kwh) == pytest.approx((1.0, 0.02, 1.0, 0.2))
    section = run_time_section(run_time(shards, []), cost)
    assert section is not None
    assert "1 GPU-hours, 0.02 of them start-up" in section["data"]
    assert "1 kWh, 0.2 of it start-up, 1,000 W in the mean" in section["data"]
    assert section["data"].count("data-amount='1'") == 2
    unknown = run_cost([shards[0], shard(1, 0, 1800, device_uuid=None)])
    assert unknown is not None and unknown.kwh is None
    section = run_time_section(run_time(shards, []), unknown)
    assert section is not None and "the device does not tell" in section["data"] and "a kWh" not in section["data"]
    assert run_cost([]) is None


def test_a_devices_name_is_no_markup() -> None:
    section = run_time_section(run_time([shard(0, 0, 9, device_name="<b>'\"")], []), None)
    assert section is not None and "&lt;b&gt;&#x27;&quot;" in section["data"] and "<b>" not in section["data"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.42, "0.4 s"), (93.2, "93 s"), (725, "12 min 5 s"), (11_540, "3 h 12 min")],
)
def test_seconds_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_the_page_of_a_finished_run_takes_the_trace_that_lies_in_its_folder(tmp_path: Path) -> None:
    results = make_results(tmp_path / "results", Run(records=200, shards=2, gpus=1))
    sections = {section["id"]: section for section in page_content(results)[0]}
    assert "EMBED_SHARD: NVIDIA H100" in sections["run_time"]["data"] and "SPLIT" not in sections["run_time"]["data"]
    (results / "pipeline_info").mkdir()
    ends = [float(end) for end in (2.0, 30.0)]
    embed = [row(f"EMBED_SHARD (shard-{n})", begin - 3, "3s") for n, begin in enumerate(ends)]
    trace(results / "pipeline_info", row("SPLIT_FASTA (x)", -5, "2s"), *embed)
    sections = {section["id"]: section for section in page_content(results)[0]}
    assert "<span>SPLIT_FASTA</span>" in sections["run_time"]["data"]
