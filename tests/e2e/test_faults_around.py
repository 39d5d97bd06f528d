"""Whole runs around which something fails: Nextflow is killed, disks are full or read-only, inputs are replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest
import torch
from fault_runs import INJECTION, assert_whole, options
from launch import Launch, launch, launch_command, launch_environment
from pipeline.models import save_fair_esm, small_esm2
from running_processes import marked, wait_until

pytestmark = [pytest.mark.one_engine, pytest.mark.faults_long]
MARK = "VIRNUCPRO_TEST_AROUND"
IN_EMBED = "virnucpro.output.writer:ShardWriter.write"


def paused_run(
    folder: Path,
    program: str,
    target: str,
    arguments: list[str],
    seconds: int = 60,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> tuple[subprocess.Popen[bytes], str]:
    """A run whose task waits at a function for some seconds; comes back once it does."""
    mark = f"{os.getpid()}-{folder.name}-{time.time_ns()}"
    asked = {"program": program, "target": target, "action": f"pause {seconds}", "once": str(folder / "once")}
    changes = {"PYTHONPATH": str(INJECTION), "VIRNUCPRO_FAULT": json.dumps(asked), MARK: mark, **environment}
    run = subprocess.Popen(
        ["env", "--default-signal", *launch_command(*arguments)],
        cwd=folder,
        env=launch_environment(changes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert wait_until((folder / "once").exists, 120)
    return run, mark


@pytest.mark.faults(
    "SIGKILL, SIGTERM of Nextflow while a task is at work, then `-resume`",
    "`nextflow run`, in split, shard and merge",
    "nothing left 10 s later; whole results, finished tasks not repeated",
)
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=lambda sent: sent.name)
@pytest.mark.parametrize(
    ("program", "target"),
    [
        ("split_fasta.py", "virnucpro.split.split:_publish"),
        ("embed_shard.py", IN_EMBED),
        ("merge_embeddings.py", "virnucpro.merge.parts:PartWriter.write"),
    ],
    ids=["split", "embed", "merge"],
)
def test_a_run_that_was_killed_goes_on(
    program: str, target: str, sent: signal.Signals, tmp_path: Path, model: Path, whole: Launch
) -> None:
    arguments = [*options(model), "--report", "false"]
    run, mark = paused_run(tmp_path, program, target, arguments)
    try:
        for process in marked(MARK, mark):
            if process.name() == "java":
                process.send_signal(sent)
        assert wait_until(lambda: not marked(MARK, mark), 10), marked(MARK, mark)
    finally:
        for process in marked(MARK, mark):
            process.kill()
        run.wait(timeout=30)
    again = launch(tmp_path, *arguments, "-resume", may_warn=True)
    assert_whole(again, whole)
    finished = {"split_fasta.py": set(), "embed_shard.py": {"SPLIT_FASTA"}, "merge_embeddings.py": {"EMBED_SHARD"}}
    assert all("CACHED" in again.statuses()[process] for process in finished[program])


@pytest.mark.faults(
    "SIGSTOP of Nextflow or of a whole task, SIGCONT half a minute later",
    "`nextflow run` while a shard is embedded",
    "whole results",
)
@pytest.mark.parametrize("stopped", ["nextflow", "task"])
def test_what_stood_still_goes_on(stopped: str, tmp_path: Path, model: Path, whole: Launch) -> None:
    run, mark = paused_run(tmp_path, "embed_shard.py", IN_EMBED, [*options(model), "--report", "false"], 3)
    try:
        still = [each for each in marked(MARK, mark) if (each.name() == "java") == (stopped == "nextflow")]
        assert still
        for process in still:
            process.suspend()
        time.sleep(30)
        assert run.poll() is None and all(each.status() == psutil.STATUS_STOPPED for each in still)
        for process in still:
            process.resume()
        assert run.wait(timeout=200) == 0
        assert wait_until(lambda: not marked(MARK, mark), 10), marked(MARK, mark)
    finally:
        for process in marked(MARK, mark):
            process.kill()
    assert_whole(Launch(0, "", tmp_path), whole)


@pytest.mark.faults(
    "SIGSTOP of a whole task, SIGKILL of Nextflow, then SIGCONT and `-resume`",
    "`nextflow run` while a shard is embedded",
    "nothing left 10 s after it goes on; whole results",
)
def test_a_task_that_stood_still_while_nextflow_was_killed(tmp_path: Path, model: Path, whole: Launch) -> None:
    arguments = [*options(model), "--report", "false"]
    run, mark = paused_run(tmp_path, "embed_shard.py", IN_EMBED, arguments)
    try:
        task = [each for each in marked(MARK, mark) if each.name() != "java"]
        for process in task:
            process.suspend()
        for process in marked(MARK, mark):
            if process.name() == "java":
                process.kill()
        run.wait(timeout=30)
        for process in task:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        assert wait_until(lambda: not marked(MARK, mark), 10), marked(MARK, mark)
    finally:
        for process in marked(MARK, mark):
            process.kill()
    assert_whole(launch(tmp_path, *arguments, "-resume", may_warn=True), whole)


@pytest.mark.faults(
    "a full disk under the work folder, or under `TMPDIR`",
    "`nextflow run`",
    "74, or 1 where Nextflow itself found no room; whole with `-resume` once there is some",
)
@pytest.mark.parametrize("full", ["work", "tmp"])
def test_a_disk_that_is_full(full: str, tmp_path: Path, small_disk: Path, model: Path, whole: Launch) -> None:
    folder = tmp_path / "run"
    arguments = [*options(model), "--report", "false"]
    if full == "work":
        arguments += ["-work-dir", str(small_disk / "work")]
    environment = {"TMPDIR": str(small_disk)} if full == "tmp" else {}
    (small_disk / "other").write_bytes(bytes((1 << 20) - 60_000))
    run = launch(folder, *arguments, environment=environment, may_warn=True)
    assert run.code in (0, 1, 74), run.output
    assert full == "tmp" or run.code != 0
    if run.code:
        assert run.published() == []
        assert "No space left on device" in run.output
        (small_disk / "other").unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        run = launch(folder, *arguments, "-resume", environment=environment, may_warn=True)
    assert_whole(run, whole)


@pytest.mark.faults(
    "the clock goes a day ahead and back, or three hours back, while a shard is embedded",
    "`nextflow run`",
    "whole results; 1 of Nextflow itself where it is set back to before the run, and whole with `-resume`",
)
@pytest.mark.parametrize(("jumps", "code"), [(("+1d", "+0"), 0), (("-3h",), 1)], ids=["ahead", "back"])
def test_a_clock_that_jumps_under_nextflow(
    jumps: tuple[str, ...], code: int, tmp_path: Path, model: Path, whole: Launch
) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("no libfaketime; apt-get install libfaketime")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    faked = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1"}
    faked |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    arguments = [*options(model), "--report", "false"]
    run, _ = paused_run(tmp_path, "embed_shard.py", IN_EMBED, arguments, 6, faked)
    for jump in jumps:
        clock.write_text(jump)
        time.sleep(3)
    assert run.wait(timeout=200) == code
    assert_whole(launch(tmp_path, *arguments, "-resume", may_warn=True) if code else Launch(0, "", tmp_path), whole)


@pytest.mark.faults("a read-only outdir", "`nextflow run`", "74 before anything is computed")
def test_an_outdir_on_a_read_only_disk(small_disk: Path, tmp_path: Path, model: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    run = launch(tmp_path / "run", *options(model), "--outdir", str(small_disk / "out"))
    assert run.code == 74, run.output
    assert f"--outdir {small_disk}/out cannot be written" in run.last_lines
    assert not any((tmp_path / "run" / "work").glob("*/*/.command.sh"))


@pytest.mark.faults("weights that hold NaN", "`nextflow run`", "65, nothing published")
def test_weights_that_hold_nan(tmp_path: Path) -> None:
    broken = small_esm2()
    with torch.no_grad():
        broken.layers[0].fc1.weight[0, 0] = float("nan")
    save_fair_esm(broken, tmp_path / "broken.pt")
    run = launch(tmp_path, *options(tmp_path / "broken.pt"), "--report", "false")
    assert run.code == 65, run.output
    assert "not finite" in run.last_lines.splitlines()[-1] and "Traceback" not in run.output
    assert run.published() == []


@pytest.mark.faults(
    "weights replaced or deleted while a shard is embedded", "`nextflow run`", "69 or 66, nothing published"
)
@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_weights_that_change_during_the_run(how: str, tmp_path: Path) -> None:
    path = tmp_path / "small.pt"
    save_fair_esm(small_esm2(), path)
    asked = {"program": "embed_shard.py", "target": "virnucpro.pipeline.embed:embed_shard"}
    asked |= {"action": f"{'replace' if how == 'replaced' else 'delete'} model/*.pt", "once": str(tmp_path / "once")}
    environment = {"PYTHONPATH": str(INJECTION), "VIRNUCPRO_FAULT": json.dumps(asked)}
    run = launch(tmp_path, *options(path), "--report", "false", environment=environment)
    assert run.code == (69 if how == "replaced" else 66) and "Traceback" not in run.output, run.output
    assert run.published() == []
