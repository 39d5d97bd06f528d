"""Programs that are given too little: memory, shared memory, disk. They end with a code that is tried again, in a line
that says what is full."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from merge.merge_runs import Run
from pipeline.models import save_fair_esm, small_esm2

from virnucpro.errors import ExitCode
from virnucpro.merge.merge import merge

BIN = Path(__file__).parents[1] / "bin"
#: What a program may end with where there is no memory: libraries die of it as well, and such tasks are tried again.
TRIED_AGAIN = {int(ExitCode.TRY_AGAIN), *(-sent for sent in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS))}
#: Said by libraries that then end the process themselves, with a code of their own.
LIBRARIES_WORDS = ("OpenBLAS", "cannot allocate memory for thread-local data")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FASTA file, a shard, a model and a run to be merged."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = random.Random(16)
    records = [f">{i}\n{''.join(rng.choices('ACDEFGHIKLMNPQRSTVWY', k=300))}\n" for i in range(30_000)]
    (folder / "in.fasta").write_text("".join(records))
    (folder / "shard-00000.fasta").write_text("".join(records[:1500]))
    save_fair_esm(small_esm2(), folder / "model.pt")
    command = [sys.executable, BIN / "fetch_model.py", "--model", folder / "model.pt", "--outdir", folder]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    merge(Run(folder / "run", list(range(1500)), shards=2, columns={"embedding": 320}, batch_rows=500).config())
    return folder


def commands(inputs: Path) -> dict[str, list[str]]:
    """What each program is told, but for where to write."""
    run = inputs / "run"
    merged = [f"--{name}={run / file}" for name, file in (("manifest", "manifest.parquet"), ("shards-in", "."))]
    merged += [f"--{name}={run / file}" for name, file in (("rejected", "rejected.tsv"), ("model-json", "model.json"))]
    embed = f"--shard {inputs}/shard-00000.fasta --model {inputs}/model.pt --model-json {inputs}/model.json"
    return {
        "split_fasta.py": [str(inputs / "in.fasta"), "--model-json", str(inputs / "model.json")],
        "merge_embeddings.py": [*merged, f"--split-summary={run}/split_summary.json"],
        "embed_shard.py": [*embed.split(), "--device", "cpu", "--threads", "1", "--token-budget", "60000"],
        "report.py": ["--results", str(run / "results")],
        "neighbours.py": ["--results", str(run / "results"), "--neighbours", "40", "--device", "cpu"],
    }


def ended(
    name: str, arguments: list[str], outdir: Path, limit: Callable[[], None] | None = None, before: str = ""
) -> tuple[int, str]:
    """Exit code and standard error of a program; ``before`` runs first, in a mount namespace of its own."""
    command = [sys.executable, str(BIN / name), *arguments, "--outdir", str(outdir)]
    if before:
        command = ["unshare", "--mount", "sh", "-c", f'{before} && exec "$@"', "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, preexec_fn=limit, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip()


@pytest.mark.faults("`ulimit -v`", "every program", "75")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS binds on Linux alone")
@pytest.mark.parametrize(
    ("name", "megabytes"),
    [
        ("split_fasta.py", (300, 450)),
        ("merge_embeddings.py", (300, 400)),
        ("embed_shard.py", (1000, 2000, 3000, 3600)),
        ("report.py", (400, 500)),
        ("neighbours.py", (1000, 3000, 3600)),
    ],
)
def test_memory_that_does_not_suffice_can_be_tried_again(
    inputs: Path, tmp_path: Path, name: str, megabytes: tuple[int, ...]
) -> None:
    codes: list[int] = []
    for size in megabytes:
        outdir, limits = tmp_path / str(size), (resource.RLIMIT_AS, (size << 20, size << 20))
        code, said = ended(name, commands(inputs)[name], outdir, partial(resource.setrlimit, *limits))
        of_a_library = any(words in said for words in LIBRARIES_WORDS)
        if not of_a_library:
            assert code in TRIED_AGAIN | {0}, said
        if code == ExitCode.TRY_AGAIN:
            assert "memory does not suffice" in said.splitlines()[-1]
        if code:
            assert not (outdir / "summary.json").exists() and not (outdir / "split_summary.json").exists()
        codes.append(int(ExitCode.TRY_AGAIN) if of_a_library else code)
    assert ExitCode.TRY_AGAIN in codes


@pytest.mark.faults("a `/dev/shm` of 64 KiB", "`embed_shard.py`", "74, with its name")
def test_shared_memory_that_is_too_small_is_named_at_once(inputs: Path, tmp_path: Path) -> None:
    small = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if subprocess.run(["unshare", "--mount", "sh", "-c", small], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    embed = [*commands(inputs)["embed_shard.py"], "--workers", "2"]
    code, said = ended("embed_shard.py", embed, tmp_path / "out", before=small)
    assert code == ExitCode.IO_ERROR
    assert said.splitlines()[-1].startswith("embed_shard.py: error: /dev/shm: no room for a batch; ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults(
    "a full disk", "split, shard, merge, neighbours", "74, with the folder; nothing left; whole once there is room"
)
@pytest.mark.parametrize("name", ["split_fasta.py", "merge_embeddings.py", "embed_shard.py", "neighbours.py"])
def test_a_full_disk_is_named(inputs: Path, small_disk: Path, name: str) -> None:
    (small_disk / "other").write_bytes(bytes(900_000))
    code, said = ended(name, commands(inputs)[name], small_disk / "out")
    assert code == ExitCode.IO_ERROR
    assert f"No space left on device: '{small_disk}/out" in said.splitlines()[-1]
    assert [path for path in small_disk.rglob("*") if path.is_file()] == [small_disk / "other"]
    (small_disk / "other").unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert ended(name, commands(inputs)[name], small_disk / "out")[0] == 0


def test_a_page_that_finds_no_room_says_where(inputs: Path, small_disk: Path) -> None:
    code, said = ended("report.py", commands(inputs)["report.py"], small_disk / "page")
    assert code == ExitCode.IO_ERROR
    assert "no space for a page in " in said and str(small_disk / "page") in said


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))


@pytest.mark.faults("a config.json of 10^9 layers, or of a width of 2·10^10", "`fetch_model.py`", "69, at once")
@pytest.mark.parametrize(
    "sizes", [{"num_hidden_layers": 10**9}, {"hidden_size": 2 * 10**10, "num_attention_heads": 1}], ids=["deep", "wide"]
)
def test_a_config_of_absurd_sizes_is_refused_at_once(tmp_path: Path, sizes: dict[str, int]) -> None:
    """Before anything of these sizes is made: with a limit of processor time, and of memory."""
    config = {"model_type": "esm", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2}
    config |= {
        "position_embedding_type": "rotary",
        "token_dropout": True,
        "vocab_size": 33,
        "layer_norm_eps": 1e-5,
        **sizes,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"esm.embeddings.word_embeddings.weight": torch.zeros(33, 32)}, tmp_path / "pytorch_model.bin")
    code, said = ended("fetch_model.py", ["--model", str(tmp_path)], tmp_path / "out", bounded)
    assert code == ExitCode.MODEL_UNAVAILABLE, said
    assert "is not an ESM-2; check that the checkpoint is complete" in said
