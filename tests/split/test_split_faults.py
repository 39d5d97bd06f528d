"""A split that is killed, or finds no room, leaves nothing that looks finished; the next one succeeds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from descriptions import describe

from virnucpro.config import SplitConfig
from virnucpro.errors import ExitCode, TryAgainError, UsageError, run_reporting_errors
from virnucpro.fasta_text import Fault
from virnucpro.split import scan
from virnucpro.split import split as split_module
from virnucpro.split.blocks import ScannedBlock
from virnucpro.split.split import split

PROGRAM = """
import sys
from pathlib import Path
from virnucpro.config import SplitConfig
from virnucpro.fasta_text import Fault
from virnucpro.split import scan
from virnucpro.split.split import split
scan.BLOCK_BYTES = 20_000
print("ready", flush=True)
fasta, outdir, model_json = map(Path, sys.argv[1:])
split(SplitConfig(inputs=(fasta,), outdir=outdir, model_json=model_json, shards_at_least=9))
"""
PACKAGE = Path(split_module.__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path, proteins: Any, write_fasta: Any) -> SplitConfig:
    model = tmp_path / "model.json"
    describe(layers=6, embed_dim=320).write(model)
    path = write_fasta([(f"p{i}", sequence) for i, sequence in enumerate(proteins([200] * 3000))])
    return SplitConfig(inputs=(path,), outdir=tmp_path / "split", model_json=model, shards_at_least=9)


def finished(outdir: Path) -> bool:
    return (outdir / "split_summary.json").exists()


def start(config: SplitConfig) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", PROGRAM, *map(str, (config.inputs[0], config.outdir, config.model_json))]
    environment = os.environ | {"PYTHONPATH": str(PACKAGE)}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.faults("SIGKILL at any moment", "the split", "nothing that looks finished; the next split is whole")
def test_killed_at_any_moment(config: SplitConfig) -> None:
    with start(config) as process:
        begun = time.monotonic()
        assert process.wait() == 0
    seconds = time.monotonic() - begun
    expected = (config.outdir / "split_summary.json").read_text()
    (config.outdir / "split_summary.json").unlink()
    unfinished = 0
    for moment in [0.0, *(random.uniform(0, 0.9) for _ in range(4))]:
        with start(config) as process:
            time.sleep(seconds * moment)
            process.send_signal(signal.SIGKILL)
            process.wait()
        if finished(config.outdir):
            assert (config.outdir / "split_summary.json").read_text() == expected
            (config.outdir / "split_summary.json").unlink()
        else:
            unfinished += 1
    assert unfinished
    split(config)
    assert (config.outdir / "split_summary.json").read_text() == expected
    assert len(list((config.outdir / "shards").iterdir())) == 9
    assert not (config.outdir / ".split.partial").exists()


def test_a_second_split_into_the_folder_is_told_and_takes_nothing_from_the_first(config: SplitConfig) -> None:
    slow = replace(config, inputs=(config.outdir.parent / "pipe",))
    os.mkfifo(slow.inputs[0])
    with start(slow) as process:
        with slow.inputs[0].open("w") as pipe:
            for _ in range(600):
                if (config.outdir / ".split.partial").exists():
                    break
                time.sleep(0.1)
            with pytest.raises(UsageError, match="split: another program is writing it; wait until it is done"):
                split(config)
            pipe.write(config.inputs[0].read_text())
        assert process.wait() == 0
    assert finished(config.outdir)
    assert len(list((config.outdir / "shards").iterdir())) == 9


@pytest.mark.faults("SIGKILL of a process of it", "the split", "75; nothing left")
def test_a_killed_process_is_worth_another_try(config: SplitConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(scan, "scan_blocks", die_in_a_worker)
    with pytest.raises(TryAgainError, match="memory"):
        split(config)
    assert list(config.outdir.iterdir()) == []


TEST_PROCESS = os.getpid()
scan_blocks = scan.scan_blocks


def die_in_a_worker(*arguments: Any) -> list[ScannedBlock | Fault]:
    if os.getpid() != TEST_PROCESS:
        os.kill(os.getpid(), signal.SIGKILL)
    return scan_blocks(*arguments)


@pytest.mark.parametrize("step", ["deduplicate", "_plan", "_publish"])
def test_no_room(config: SplitConfig, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(split_module, step, no_room)
    with pytest.raises(OSError, match="No space left"):
        split(config)
    assert list(config.outdir.iterdir()) == []


@pytest.mark.faults("a full disk in each of its passes", "the split", "74; nothing left")
@pytest.mark.parametrize("kib", [100, 400, 800])
def test_a_full_disk_ends_the_split_with_74_and_leaves_nothing(
    config: SplitConfig, small_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kib: int
) -> None:
    """Room for a part of what this split takes: it ends in another pass each time."""
    monkeypatch.setattr(scan, "BLOCK_BYTES", 20_000)
    full = replace(config, outdir=small_disk / "split")
    (small_disk / "other").write_bytes(bytes((1024 - kib) << 10))
    assert run_reporting_errors("split_fasta.py", lambda: split(full) and None) == ExitCode.IO_ERROR
    assert "No space left on device" in capsys.readouterr().err
    assert list((small_disk / "split").iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert split(full).embedded == 3000
    assert finished(full.outdir)
