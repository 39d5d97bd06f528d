"""Merge interrupted: by SIGKILL at any moment, and by a disk that is full."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from merge.merge_runs import Run, read_results

import virnucpro
from virnucpro.errors import ExitCode, UsageError, run_reporting_errors
from virnucpro.merge.merge import merge
from virnucpro.merge.verify import verify

_MERGE = """
import sys, time
from pathlib import Path
from virnucpro.merge.config import MergeConfig
from virnucpro.merge import parts
from virnucpro.merge.merge import merge

folder = Path(sys.argv[1])
write = parts.PartWriter.write
def slowly(self, table):
    time.sleep(0.02)
    write(self, table)
parts.PartWriter.write = slowly
print("ready", flush=True)
merge(MergeConfig(
    manifest=folder / "manifest.parquet", rejected=folder / "rejected.tsv", split_summary=folder / "split_summary.json",
    model_json=folder / "model.json", shard_dirs=tuple(sorted(folder.glob("shard-*"))),
    outdir=folder / "results", row_group_rows=4, part_bytes=200,
))
"""


@pytest.mark.faults("SIGKILL at any moment", "the merge", "nothing that looks finished; the next merge is whole")
@pytest.mark.parametrize("latest", [0.0, 0.2, 0.4, 0.6])
def test_a_killed_merge_leaves_nothing_that_looks_finished_and_a_rerun_succeeds(tmp_path: Path, latest: float) -> None:
    seconds = random.uniform(max(0.0, latest - 0.2), latest)
    run = Run(tmp_path, [i * 7 % 50 for i in range(120)], shards=3)
    environment = {**os.environ, "PYTHONPATH": str(Path(virnucpro.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", _MERGE, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "results").exists()
    merge(run.config())
    assert read_results(tmp_path / "results").num_rows == 120
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.faults("a full disk", "the merge", "74; nothing left")
def test_a_full_disk_ends_the_merge_with_74_and_leaves_nothing(
    tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run", list(range(1500)), shards=1, columns={"embedding": 320}, batch_rows=500)
    config = run.config(outdir=small_disk / "results")
    assert run_reporting_errors("merge_embeddings.py", lambda: merge(config) and None) == ExitCode.IO_ERROR
    assert "No space left on device" in capsys.readouterr().err
    assert list(small_disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    merge(config)
    assert read_results(config.outdir).num_rows == 1500


@pytest.mark.faults("a full disk", "a shard's writer", "74; nothing left")
def test_a_full_disk_ends_a_shard_with_74_and_leaves_nothing(
    tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from virnucpro.output.writer import ShardWriter

    def write() -> None:
        ShardWriter(small_disk / "shard-00000", {"embedding": 320}, "float32", 0, 1500, {})

    assert run_reporting_errors("embed_shard.py", write) == ExitCode.IO_ERROR
    assert "No space left on device" in capsys.readouterr().err
    assert list(small_disk.iterdir()) == []


@pytest.mark.faults("a second one into the same folder", "the merge", "2 and one line; the first is whole")
def test_a_second_merge_into_a_folder_is_refused_and_the_first_is_whole(tmp_path: Path) -> None:
    run = Run(tmp_path, [i * 7 % 50 for i in range(120)], shards=3)
    environment = {**os.environ, "PYTHONPATH": str(Path(virnucpro.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", _MERGE, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    ) as process:
        while not (tmp_path / ".results.partial" / "embeddings").exists():
            time.sleep(0.01)
        with pytest.raises(UsageError, match="another program is writing it"):
            merge(run.config())
    assert process.returncode == 0
    assert verify(tmp_path / "results").rows == 120
