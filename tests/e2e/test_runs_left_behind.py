"""What a run leaves when Nextflow, or anything that it started, is ended by a signal: nothing that is at work."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from launch import MODEL, PROJECT, launch_command, launch_environment
from running_processes import marked, wait_until

pytestmark = pytest.mark.one_engine

#: Seconds after which nothing may be left.
GONE_WITHIN = 10
#: Carried in the environment of all that a test starts.
MARK = "VIRNUCPRO_TEST_RUN"
GUARD = PROJECT / "conf" / "task_guard.sh"


@dataclass(frozen=True)
class Found:
    """A process as it was when it was looked at."""

    process: psutil.Process
    name: str
    command: str
    parent: str


def found(mark: str) -> list[Found]:
    """All that carry the mark and run."""
    seen = []
    for process in marked(MARK, mark):
        with suppress(psutil.Error):
            parent = process.parent()
            facts = process.name(), " ".join(process.cmdline()), parent.name() if parent else ""
            seen.append(Found(process, *facts))
    return seen


def end(these: Iterable[Found], sent: signal.Signals = signal.SIGKILL) -> None:
    for each in these:
        with suppress(psutil.NoSuchProcess):
            each.process.send_signal(sent)


def end_all(mark: str) -> None:
    """Those too that are started while the others are found, and the guards that would have ended them with them."""
    while these := list(found(mark)):
        end(these)


@contextmanager
def embedding(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A run whose one shard is at work for longer than any test."""
    rng = random.Random(16)
    records = (f">{i}\n{''.join(rng.choices('ACDEFGHIKLMNPQRSTVWY', k=300))}\n" for i in range(4000))
    (folder / "in.fasta").write_text("".join(records))
    mark = f"{os.getpid()}-{rng.random()}-{folder.name}"
    command = launch_command("--input", "in.fasta", "--model", MODEL, "--report", "false")
    with subprocess.Popen(
        # A shell has its background jobs ignore what Ctrl-C sends, and nohup what a terminal's end does.
        ["env", "--default-signal", *command],
        cwd=folder,
        env={**launch_environment(), MARK: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        try:
            assert wait_until(lambda: any(is_program(each) for each in found(mark)), 120)
            yield run, mark
        finally:
            end_all(mark)


def is_nextflow(each: Found) -> bool:
    return each.name == "java"


def is_wrapper(each: Found) -> bool:
    return each.command.endswith(".command.run") and each.parent == "java"


def is_script(each: Found) -> bool:
    return each.command.endswith(".command.sh")


def is_program(each: Found) -> bool:
    return "embed_shard.py --shard" in each.command and each.name.startswith("python")


@pytest.mark.faults(
    "SIGINT, SIGTERM, SIGHUP, SIGKILL of Nextflow",
    "`nextflow run` while a shard is embedded",
    "nothing of the run is left 10 s later",
)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda s: s.name)
def test_nothing_outlives_nextflow(tmp_path: Path, sent: signal.Signals) -> None:
    with embedding(tmp_path) as (_, mark):
        end(filter(is_nextflow, found(mark)), sent)
        assert wait_until(lambda: not found(mark), GONE_WITHIN), found(mark)


@pytest.mark.faults(
    "Ctrl-C in the terminal", "`nextflow run` while a shard is embedded", "nothing of the run is left 10 s later"
)
def test_nothing_outlives_ctrl_c(tmp_path: Path) -> None:
    """A terminal sends it to all of its foreground."""
    with embedding(tmp_path) as (run, mark):
        os.killpg(run.pid, signal.SIGINT)
        assert wait_until(lambda: not found(mark), GONE_WITHIN), found(mark)


@pytest.mark.faults(
    "SIGKILL of a task's wrapper, shell or program",
    "`nextflow run` while a shard is embedded",
    "nothing of the task is left 10 s later",
)
@pytest.mark.parametrize("which", [is_wrapper, is_script, is_program], ids=["wrapper", "script", "program"])
def test_nothing_of_a_task_outlives_a_part_of_it_that_is_killed(tmp_path: Path, which: Callable[[Found], bool]) -> None:
    with embedding(tmp_path) as (_, mark):
        task = [each for each in found(mark) if not is_nextflow(each)]
        left = {each.process.pid for each in task if is_program(each)}
        assert left
        end(filter(which, task))
        assert wait_until(lambda: not left & {each.process.pid for each in found(mark)}, GONE_WITHIN), found(mark)


@pytest.mark.parametrize("on", ["linux", "others"])
@pytest.mark.parametrize("killed", ["wrapper", "launcher"])
def test_the_guard_ends_what_ignores_to_be_told(tmp_path: Path, on: str, killed: str) -> None:
    """Also where there is no /proc: a path that there is nowhere stands in its place."""
    guard = tmp_path / "guard.sh"
    guard.write_text(GUARD.read_text().replace("/proc/", "/proc/" if on == "linux" else "/nowhere/"))
    mark = f"{os.getpid()}-{on}-{killed}"
    deaf = "trap '' TERM HUP INT; sleep 300 & while :; do sleep 1; done"
    (tmp_path / "wrapper.sh").write_text(f'. {guard}\nbash -c "{deaf}" &\nwait\n')
    (tmp_path / "launcher.sh").write_text("bash wrapper.sh &\nwait\n")
    with subprocess.Popen(["bash", "launcher.sh"], cwd=tmp_path, env={**os.environ, MARK: mark}) as launcher:
        try:
            assert wait_until(lambda: any(each.command == "sleep 300" for each in found(mark)), 20)
            time.sleep(1.5)
            if killed == "launcher":
                launcher.kill()
            else:
                (wrapper,) = [
                    each
                    for each in found(mark)
                    if each.command == "bash wrapper.sh"
                    and each.parent == "bash"
                    and each.process.ppid() == launcher.pid
                ]
                wrapper.process.kill()
            assert wait_until(lambda: not found(mark), GONE_WITHIN), found(mark)
        finally:
            end_all(mark)
