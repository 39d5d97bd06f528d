"""Ctrl-C at any moment of any program: a line, and 130, whether the terminal sends it to one process or to all."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from e2e.launch import MODEL, PROJECT
from merge.merge_runs import Run
from running_processes import marked, wait_until

from virnucpro.children import STOPPED_SECONDS
from virnucpro.merge.merge import merge

BIN = PROJECT / "bin"
MARK = "VIRNUCPRO_TEST_INTERRUPT"
#: What shows that a program's own work has begun, and lasts some seconds from there on.
PROGRAMS = ("split_fasta.py", "fetch_model.py", "embed_shard.py", "merge_embeddings.py", "neighbours.py", "report.py")
#: Makes a file once the program's own code runs: before that, Python is at work on itself, and nothing of ours can
#: say anything.
BEGUN = """
import os, sys

class Begun:
    def find_spec(self, name, path, target=None):
        if name.startswith("virnucpro.cli."):
            open(os.environ["BEGUN"], "w").close()

sys.meta_path.insert(0, Begun())
"""
#: Lines that tell how far a program is.
PROGRESS = ("waiting for the first batch", "sequences", "tokens")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough of everything to keep each program at work for some seconds."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = random.Random(16)
    records = [f">{i}\n{''.join(rng.choices('ACDEFGHIKLMNPQRSTVWY', k=300))}\n" for i in range(60_000)]
    (folder / "in.fasta").write_text("".join(records))
    (folder / "shard-00000.fasta").write_text("".join(records[:4000]))
    command = [sys.executable, BIN / "fetch_model.py", "--model", MODEL, "--outdir", folder]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    merge(Run(folder / "run", list(range(3000)), shards=2, columns={"embedding": 320}, batch_rows=500).config())
    return folder


def command_of(name: str, inputs: Path, outdir: Path) -> list[str]:
    run = inputs / "run"
    # A checkpoint that has never been described: of one that has, a program is done before it can be interrupted.
    new = shutil.copytree(MODEL, outdir.with_suffix(".model")) if name == "fetch_model.py" else MODEL
    merged = {"manifest": "manifest.parquet", "rejected": "rejected.tsv", "split-summary": "split_summary.json"}
    arguments = {
        "split_fasta.py": [inputs / "in.fasta", "--model-json", inputs / "model.json"],
        "fetch_model.py": ["--model", new],
        "embed_shard.py": f"--shard {inputs}/shard-00000.fasta --model {MODEL} --model-json {inputs}/model.json "
        "--device cpu --workers 1".split(),
        "merge_embeddings.py": [
            *(f"--{option}={run / file}" for option, file in merged.items()),
            *(f"--model-json={run}/model.json", f"--shards-in={run}"),
        ],
        "neighbours.py": f"--results {run}/results --neighbours 3 --device cpu".split(),
        "report.py": ["--results", run / "results"],
    }
    return [sys.executable, *map(str, (BIN / name, *arguments[name], "--outdir", outdir))]


def interrupted(command: list[str], folder: Path, moment: float, *, everyone: bool) -> tuple[int, list[str]]:
    """Exit code and what was said beside progress, of a program that got Ctrl-C; nothing of it is left."""
    mark = f"{os.getpid()}-{random.random()}"
    begun = folder / f"begun-{mark}"
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{BIN}", MARK: mark, "BEGUN": str(begun)}
    (folder / "sitecustomize.py").write_text(BEGUN)
    with subprocess.Popen(
        ["env", "--default-signal", *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        assert wait_until(begun.exists, 20)
        time.sleep(moment)
        (os.killpg if everyone else os.kill)(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert wait_until(lambda: not marked(MARK, mark), 10)
    lines = [line for line in said.splitlines() if not any(words in line for words in PROGRESS)]
    return running.returncode, lines


@pytest.mark.faults("Ctrl-C at any moment", "every program of `bin/`", "130 and one line; nothing left at work")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_is_interrupted_says_one_line(name: str, inputs: Path, tmp_path: Path) -> None:
    rng, codes = random.Random(name), []
    for trial, moment in enumerate((0.05, 0.2, rng.uniform(0.3, 1.0), rng.uniform(0.5, 2.5))):
        command = command_of(name, inputs, tmp_path / str(trial))
        code, said = interrupted(command, tmp_path, moment, everyone=bool(trial % 2))
        if code == 130:
            assert said == [f"{name}: error: interrupted; run again"]
        else:
            # Done before, or, as it ended, by the signal itself.
            assert code in (0, -signal.SIGINT) and said == []
        codes.append(code)
    assert codes[0] == 130


@pytest.mark.faults(
    "Ctrl-C at any moment", "`virnucpro embed`", "130 and one line; nothing left at work; goes on from there"
)
@pytest.mark.parametrize("everyone", [True, False], ids=["terminal", "kill"])
def test_a_whole_run_that_is_interrupted_says_one_line(everyone: bool, inputs: Path, tmp_path: Path) -> None:
    begin = [sys.executable, "-m", "virnucpro", "embed", str(inputs / "in.fasta"), "--outdir", str(tmp_path / "out")]
    command = [*begin, "--model", str(MODEL), "--gpus", "0", "--no-report"]
    for moment in (1.0, 6.0, 12.0):
        code, said = interrupted(command, tmp_path, moment, everyone=everyone)
        # A shell says 130 of both: Python ends by the signal where that came in the midst of what C had it run.
        assert code in (130, -signal.SIGINT) and len(said) == 1, said
        # Before it knows that it is told to embed, it is called as it was started.
        assert said[0] in (f"{name}: error: interrupted; run again" for name in ("virnucpro embed", "__main__.py"))
    assert not (tmp_path / "out").exists()


#: A program that is interrupted where nobody can be told, or where what tells it says something else.
AWKWARD = {
    "in what Arrow reads from": """
        import io
        import pyarrow.parquet as pq

        class File(io.BytesIO):
            def read(self, size=-1):
                signal.raise_signal(signal.SIGINT)
                return super().read(size)

        def work():
            pq.read_table(File(b"PAR1" * 100))
        """,
    "in a destructor": """
        class Last:
            def __del__(self):
                signal.raise_signal(signal.SIGINT)

        def work():
            Last()
            for _ in range(600):
                time.sleep(0.1)
        """,
    "between a process and its work": """
        from virnucpro.children import TiedForkContext

        def work():
            TiedForkContext().Process(target=time.sleep, args=(600,)).start()
            os.killpg(0, signal.SIGINT)
            time.sleep(600)
        """,
    "while a loader starts": """
        import torch
        from virnucpro.data.cuda_isolation import CudaHiddenProcess
        from virnucpro.data.dataloader_utils import create_async_dataloader
        from virnucpro.data.lost_workers import ending_with_loaders

        def start(self, start=CudaHiddenProcess.start):
            start(self)
            os.killpg(0, signal.SIGINT)

        CudaHiddenProcess.start = start

        def work():
            with ending_with_loaders():
                items = [{"id": str(i), "sequence": "MKV"} for i in range(99)]
                next(iter(create_async_dataloader(items, list, batch_size=3, num_workers=2)))
        """,
    "with a process that stands still": """
        from virnucpro.children import TiedSpawnProcess

        def work():
            process = TiedSpawnProcess(target=time.sleep, args=(600,), daemon=True)
            process.start()
            os.kill(process.pid, signal.SIGSTOP)
            os.killpg(0, signal.SIGINT)
            time.sleep(600)
        """,
}


@pytest.mark.parametrize("work", AWKWARD.values(), ids=AWKWARD)
def test_an_interrupt_is_told_wherever_it_comes(work: str, tmp_path: Path) -> None:
    begin = "import os, signal, time\nimport virnucpro.cli\n"
    end = """
if __name__ == "__main__":
    from virnucpro.cli.program import run_as_process
    from virnucpro.errors import run_reporting_errors
    run_as_process(lambda: run_reporting_errors("work.py", work))
"""
    (tmp_path / "work.py").write_text(begin + textwrap.dedent(work) + end)
    mark = f"{os.getpid()}-{random.random()}"
    done = subprocess.run(
        ["env", "--default-signal", sys.executable, "work.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(BIN), MARK: mark},
        capture_output=True,
        text=True,
        timeout=STOPPED_SECONDS + 100,
        start_new_session=True,
    )
    assert (done.returncode, done.stderr.splitlines()) == (130, ["work.py: error: interrupted; run again"])
    assert wait_until(lambda: not marked(MARK, mark), 10)
