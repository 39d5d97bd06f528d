"""What a shard's task leaves when it, or one of its workers, is stopped or killed at any moment: nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from pipeline.models import save_fair_esm, small_esm2
from running_processes import marked, wait_until

from virnucpro.children import STOPPED_SECONDS

BIN = Path(__file__).parents[2] / "bin"
#: Seconds after which nothing may be left of a task that is gone.
GONE_WITHIN = 10
#: Carried in the environment of all that a test starts.
MARK = "VIRNUCPRO_TEST_TASK"


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a shard of many batches, one of few, and all that embed_shard.py asks for."""
    folder = tmp_path_factory.mktemp("shard")
    rng = random.Random(16)
    records = [f">{i}\n{''.join(rng.choices('ACDEFGHIKLMNPQRSTVWY', k=60))}\n" for i in range(20_000)]
    (folder / "shard-00000.fasta").write_text("".join(records))
    (folder / "shard-00001.fasta").write_text("".join(records[:100]))
    save_fair_esm(small_esm2(), folder / "model.pt")
    command = [sys.executable, BIN / "fetch_model.py", "--model", folder / "model.pt", "--outdir", folder]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return folder


def shared_memory(of: list[psutil.Process]) -> set[Path]:
    """Files in shared memory, semaphores among them, that processes hold and that have a name."""
    held = set()
    for process in of:
        try:
            held |= {Path(each.path) for each in process.memory_maps() if each.path.startswith("/dev/shm/")}
        except psutil.Error:
            continue
    return {path for path in held if path.exists()}


def processes(mark: str) -> list[psutil.Process]:
    """All that carry the mark and run, with what they started."""
    return marked(MARK, mark)


def command_of(outdir: Path, shard: str = "shard-00000.fasta") -> list[str]:
    """The task with two workers."""
    command = [str(BIN / "embed_shard.py"), "--shard", shard, "--model", "model.pt"]
    command += ["--model-json", "model.json", "--outdir", str(outdir), "--device", "cpu", "--threads", "1"]
    return [*command, "--workers", "2", "--token-budget", "500"]


@contextmanager
def started(shard: Path, outdir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The task, at work for longer than any test."""
    mark = f"{os.getpid()}-{random.random()}"
    # A shell has its background jobs ignore what Ctrl-C sends, and nohup what a terminal's end does.
    command = ["env", "--default-signal", sys.executable, *command_of(outdir)]
    with subprocess.Popen(
        command, cwd=shard, env={**os.environ, MARK: mark}, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as task:
        try:
            yield task, mark
        finally:
            for process in processes(mark):
                process.kill()


def workers(task: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(task.pid).children() if task.poll() is None else []
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def tied(worker: psutil.Process) -> bool:
    """Whether a worker has come as far as to end with its task: a thread of it then looks after that."""
    return worker.num_threads() > 1


def working(task: subprocess.Popen[str]) -> bool:
    """Whether both workers have come as far as to make batches: each then shares memory with the task."""
    return len(workers(task)) == 2 and all(child.num_threads() > 2 for child in workers(task))


#: The task where the threads of queues are slow to end, and to clean up after themselves.
SLOW_QUEUES = """
import runpy, sys, threading, time
from multiprocessing import queues, resource_tracker, synchronize

def feed(*arguments, feed=queues.Queue._feed):
    feed(*arguments)
    time.sleep(1)

def clean_up(name):
    synchronize.sem_unlink(name)
    if threading.current_thread() is not threading.main_thread():
        time.sleep(0.2)
    resource_tracker.unregister(name, "semaphore")

if __name__ == "__main__":
    queues.Queue._feed = staticmethod(feed)
    synchronize.SemLock._cleanup = staticmethod(clean_up)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_task_that_succeeds_leaves_no_semaphore(shard: Path, tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(SLOW_QUEUES)
    environment = {**os.environ, "PYTHONPATH": str(BIN)}
    command = [sys.executable, driver, *command_of(tmp_path / "out", "shard-00001.fasta")]
    done = subprocess.run(command, cwd=shard, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr


def gone(mark: str, held: set[Path]) -> bool:
    return not processes(mark) and not any(path.exists() for path in held)


@pytest.mark.faults(
    "SIGSTOP of a loader's worker", "`embed_shard.py`", "75, with the process that stood still; nothing left"
)
def test_a_stopped_worker_ends_the_task_with_75_and_a_word(shard: Path, tmp_path: Path) -> None:
    with started(shard, tmp_path / "out") as (task, mark):
        assert wait_until(lambda: working(task), 60)
        stopped, held = workers(task)[0], shared_memory(processes(mark))
        stopped.suspend()
        _, err = task.communicate(timeout=STOPPED_SECONDS + 60)
        assert task.returncode == 75, err
        assert f"process {stopped.pid} was stopped by a signal for {STOPPED_SECONDS} s" in err.splitlines()[-1]
        assert "Traceback" not in err
        assert wait_until(lambda: gone(mark, held), GONE_WITHIN), processes(mark)
    assert held
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults("SIGKILL of a loader's worker", "`embed_shard.py`", "75")
def test_a_worker_that_is_killed_ends_the_task_with_75(shard: Path, tmp_path: Path) -> None:
    """Whatever the task does at that moment: torch reports it in the middle of that."""
    with started(shard, tmp_path / "out") as (task, _):
        assert wait_until(lambda: working(task), 60)
        workers(task)[1].kill()
        _, err = task.communicate(timeout=60)
    assert task.returncode == 75, err
    assert "give the task more memory" in err.splitlines()[-1] and "Traceback" not in err


SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


@pytest.mark.faults(
    "SIGKILL, SIGTERM, SIGINT, SIGHUP, SIGUSR2 at any moment, with and without a stopped worker",
    "`embed_shard.py`",
    "no process and no shared memory left 10 s later",
)
def test_nothing_outlives_a_task_that_is_killed_at_any_moment(shard: Path, tmp_path: Path) -> None:
    """From its first moments to its work, by each signal in turn; at every second time with a worker stopped."""
    rng = random.Random(16)
    for trial in range(2 * len(SIGNALS)):
        moment, sent = rng.uniform(0.1, 5), SIGNALS[trial % len(SIGNALS)]
        with started(shard, tmp_path / f"out{trial}") as (task, mark):
            time.sleep(moment)
            if trial % 2:
                for worker in list(filter(tied, workers(task)))[:1]:
                    worker.suspend()
            held = shared_memory(processes(mark))
            task.send_signal(sent)
            assert wait_until(lambda m=mark, h=held: gone(m, h), GONE_WITHIN), (moment, sent, processes(mark), held)


@pytest.mark.faults(
    "SIGSTOP of a loader's worker in the first moment of its life, SIGKILL of its task, then SIGCONT",
    "`embed_shard.py`",
    "no process left 10 s later",
)
def test_a_worker_that_was_stopped_before_it_was_tied_ends_once_it_goes_on(shard: Path, tmp_path: Path) -> None:
    """No signal of the kernel's can end it before it has asked for one; under Nextflow the task's guard kills it."""
    with started(shard, tmp_path / "out") as (task, mark):
        assert wait_until(lambda: bool(workers(task)), 60)
        stopped = workers(task)[0]
        stopped.suspend()
        task.kill()
        task.wait()
        stopped.resume()
        assert wait_until(lambda: gone(mark, set()), GONE_WITHIN), processes(mark)
