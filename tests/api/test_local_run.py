"""``virnucpro embed``: refusals, several shards, and going on after an interruption."""

from __future__ import annotations

import json
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


def run(
    folder: Path, *arguments: str | Path, beside: Path | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    """A command in a folder, with modules of another before its own, and changes of the environment."""
    command = [*map(str, arguments)]
    environment = {**ENVIRONMENT, **changes}
    if beside:
        environment["PYTHONPATH"] = f"{beside}:{environment['PYTHONPATH']}"
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


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
        (["lost.fasta", "-o", "out", "--model", "none/there"], 66, "lost.fasta: no such file; check the path given to"),
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


def test_a_home_is_needed_to_keep_models_alone(tmp_path: Path) -> None:
    """As where a container runs as a user that it does not know."""
    unknown = "import pwd, runpy\ndef unknown(_): raise KeyError\npwd.getpwuid = unknown\n"
    program = f"{unknown}runpy.run_module('virnucpro', run_name='__main__')"
    command = [sys.executable, "-c", program, *EMBED[3:]]
    done = run(tmp_path, *command, FEW, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out" / "embeddings").num_rows == 12
    done = run(tmp_path, *command, FEW, "-o", "named", "--model", "esm2_t6_8M_UR50D")
    told = "this user has no home folder to keep models in; name one with --model_cache"
    assert (done.returncode, done.stderr) == (2, f"virnucpro embed: error: {told}\n")


def test_it_ends_where_the_ends_of_children_are_ignored(tmp_path: Path) -> None:
    """As a starter may leave it: the system then keeps no exit code of the process of a shard."""
    program = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = run(tmp_path, sys.executable, "-c", program, *EMBED, FEW, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out" / "embeddings").num_rows == 12


@pytest.mark.parametrize("layers", ["-2,-1", "-1,0"])
def test_layers_are_counted_from_the_end(layers: str, tmp_path: Path) -> None:
    done = run(tmp_path, *EMBED, FEW, "-o", "out", "--layers", layers)
    assert done.returncode == 0, done.stderr
    (part,) = (tmp_path / "out" / "embeddings").glob("*.parquet")
    metadata = json.loads(pq.read_schema(part).metadata[b"virnucpro"])
    assert metadata["layers"] == [int(layer) % 7 for layer in layers.split(",")]


def test_results_that_another_run_finishes_meanwhile_are_left_alone_and_told_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    paused = tmp_path / "paused"
    fault = {"program": "virnucpro", "target": "virnucpro.api.local_run:describe_once", "action": "pause 5"}
    faults = {"VIRNUCPRO_FAULT": json.dumps({**fault, "once": str(paused)})}
    paths = os.pathsep.join((str(PROJECT / "tests" / "faults"), ENVIRONMENT["PYTHONPATH"]))
    command = [*map(str, EMBED), str(FEW), "-o", "out"]
    started = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT | faults | {"PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not paused.exists():
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.parquet").write_text("theirs")
    _, told = started.communicate(timeout=120)
    assert (started.returncode, told) == (
        2,
        "virnucpro embed: error: out: exists already and is not empty; remove it or name another --outdir\n",
    )
    assert (tmp_path / "out" / "manifest.parquet").read_text() == "theirs"
    assert not (tmp_path / ".out.run").exists()


def test_a_run_does_not_go_on_with_other_results_to_reuse(tmp_path: Path) -> None:
    earlier, killed = tmp_path / "earlier", tmp_path / "killed"
    other = tmp_path / "other.fasta"
    other.write_text(">other\nMVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSF\n")
    assert run(tmp_path, *EMBED, FEW, "-o", earlier).returncode == 0
    fault = {"program": "virnucpro", "target": "virnucpro.api.local_run:merge", "action": "SIGKILL"}
    paths = os.pathsep.join((str(PROJECT / "tests" / "faults"), ENVIRONMENT["PYTHONPATH"]))
    environment = {"PYTHONPATH": paths, "VIRNUCPRO_FAULT": json.dumps({**fault, "once": str(killed)})}
    arguments = [*map(str, EMBED), str(FEW), str(other), "--reuse", str(earlier), "-o", "out"]
    broken = subprocess.run(arguments, cwd=tmp_path, env=ENVIRONMENT | environment, capture_output=True, timeout=300)
    assert broken.returncode == -signal.SIGKILL
    shutil.rmtree(earlier)
    assert run(tmp_path, *EMBED, other, "-o", earlier).returncode == 0
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    status = pq.read_table(tmp_path / "out" / "manifest.parquet", columns=["status"])["status"].to_pylist()
    assert status == ["embedded"] * 12 + ["reused"]


def test_what_a_run_left_damaged_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / ".out.run" / "shard-00000").mkdir(parents=True)
    (tmp_path / ".out.run" / "run.json").write_bytes(b"[\xff\0")
    done = run(tmp_path, *EMBED, FEW, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out"]


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
