"""``virnucpro embed``: refusals, several shards, and going on after an interruption."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from e2e.launch import MODEL, PROJECT

FASTA = PROJECT / "assets" / "proteins.fasta"
FEW = PROJECT / "tests" / "fixtures" / "few.fasta"
COMMAND = [sys.executable, "-m", "virnucpro"]
ENVIRONMENT = {"PYTHONPATH": str(PROJECT / "bin"), "PATH": os.environ["PATH"]}
EMBED = [*COMMAND, "embed", "--model", MODEL, "--gpus", "0", "--no-report", "--max_length", "60"]
SHARDS = ["--shard_residues", "9000"]


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def test_help_lists_the_commands(tmp_path: Path) -> None:
    done = run(tmp_path, *COMMAND, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  embed             Embed protein FASTA with ESM-2 on this machine" in done.stdout
    assert "  merge-embeddings  Merge the shards" in done.stdout
    assert run(tmp_path, *COMMAND, "--version").stdout.startswith("virnucpro 0.")
    unknown = run(tmp_path, *COMMAND, "embedd")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("virnucpro: error: no command 'embedd'; the commands are embed, fetch-model,")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["lost.fasta", "-o", "out"], 66, "lost.fasta: no such file; check the path given to --input"),
        ([FASTA, "-o", "full"], 2, "full: exists already and is not empty; remove it or name another --outdir"),
        ([FASTA, "-o", "out", "--gpus", "64"], 2, "--gpus is 64, but "),
        ([FASTA, "-o", "out", "--gpus", "-1"], 2, "--gpus is -1, but must be at least 0"),
        ([FASTA, "-o", "out", "--model", "esm2_t6_8M"], 69, "esm2_t6_8M"),
        ([FASTA, "-o", "out", "--layers", "9"], 2, "--layers holds 9, but the model has layers 0 to 6"),
        (["-o", "out"], 2, "no input file given"),
        ([FASTA, "-o", "\udcff"], 66, "a path that is not in UTF-8, which Arrow cannot open; rename it"),
    ],
    ids=lambda value: "-".join(map(str, value[-2:])) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_in_a_line(
    tmp_path: Path, arguments: list[str | Path], code: int, message: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    done = run(tmp_path, *EMBED, *arguments)
    assert done.returncode == code, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("virnucpro embed: error: ") and message in last
    assert (tmp_path / "full" / "thesis.txt").exists() and not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take UTF-8 alone")
def test_an_input_need_not_be_called_in_utf8(tmp_path: Path) -> None:
    shutil.copyfile(FEW, tmp_path / "\udcff.fasta")
    done = run(tmp_path, *EMBED, "\udcff.fasta", "-o", "out", "--provenance", "full")
    assert done.returncode == 0, done.stderr
    assert run(tmp_path, *COMMAND, "verify", "out").returncode == 0
    assert '"name": "?.fasta"' in (tmp_path / "out" / "ro-crate-metadata.json").read_text()


def test_a_shard_that_fails_says_why_and_ends_the_run_with_its_code(tmp_path: Path) -> None:
    import torch

    damaged = shutil.copytree(MODEL, tmp_path / "damaged")
    state = torch.load(damaged / "pytorch_model.bin", weights_only=True)
    name = next(name for name in state if name.endswith("emb_layer_norm_after.weight"))
    state[name][0] = torch.nan
    torch.save(state, damaged / "pytorch_model.bin")
    done = run(tmp_path, *EMBED, FEW, "-o", "out", "--model", damaged)
    assert done.returncode == 65
    why, last = done.stderr.splitlines()[-2:]
    assert why.startswith("shard-00000: error: the vectors of 12 sequences (") and "are not finite" in why
    assert last.startswith("virnucpro embed: error: shard-00000 could not be embedded (exit code 65); its own message")
    assert not (tmp_path / "out").exists()


def test_a_shard_whose_process_is_killed_is_tried_again(tmp_path: Path) -> None:
    command = [*map(str, EMBED), str(FEW), "-o", "out"]
    started = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (
        found := [each for each in psutil.Process(started.pid).children() if "spawn_main" in str(each.cmdline())]
    ):
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    found[0].kill()
    _, told = started.communicate(timeout=120)
    assert started.returncode == 0, told
    assert "shard-00000: ended with -9, is tried again" in told
    assert pq.read_table(tmp_path / "out" / "embeddings").num_rows == 12


def test_it_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    arguments = [*map(str, EMBED), str(FASTA), "-o", "out", *SHARDS]
    first, work = tmp_path / ".out.run" / "shard-00000", tmp_path / ".out.run"
    interrupted = subprocess.Popen(
        arguments, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not first.exists():
        assert interrupted.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    beside = run(tmp_path, *arguments)
    assert beside.returncode == 2
    assert "out: another run is at work on it; wait, or name another --outdir" in beside.stderr
    interrupted.send_signal(signal.SIGKILL)
    interrupted.wait()
    written = (first / "embeddings.parquet").stat().st_mtime_ns
    shards = len(list((work / "shards").iterdir()))
    again = time.time()
    done = run(tmp_path, *arguments, "--token_budget", "4000", "--neighbours", "3", "--cpus", "1")
    assert done.returncode == 0, done.stderr
    assert "distinct sequences to embed" not in done.stdout
    assert shards > 2
    shown = pq.read_table(tmp_path / "out" / "metrics" / "shards.parquet", columns=["shard", "finished"]).to_pylist()
    assert [row["shard"] for row in shown] == list(range(shards))
    assert shown[0]["finished"] * 1e9 <= written + 1e9
    assert 0 < sum(row["finished"] > again for row in shown) < shards
    assert pq.read_table(tmp_path / "out" / "embeddings").num_rows == 351
    assert (tmp_path / "out" / "neighbours.parquet").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
