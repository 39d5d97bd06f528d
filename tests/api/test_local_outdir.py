"""``virnucpro embed``: the folder of its results, and what lies beside it."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path

import pytest
from api.test_local_run import COMMAND, EMBED, FEW, run
from e2e.launch import PROJECT

INJECTION = PROJECT / "tests" / "faults"


def embed(folder: Path, *arguments: str | Path) -> Path:
    done = run(folder, *EMBED, *arguments)
    assert done.returncode == 0, done.stderr
    return folder


def last_line(folder: Path, *arguments: str | Path, code: int) -> str:
    done = run(folder, *EMBED, *arguments)
    assert done.returncode == code, done.stderr
    return done.stderr.splitlines()[-1].removeprefix("virnucpro embed: error: ")


def test_results_stand_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to("disk/real")
    embed(tmp_path, FEW, "-o", "link")
    assert (tmp_path / "link").is_symlink()
    assert run(tmp_path, *COMMAND, "verify", "disk/real").returncode == 0
    assert [each.name for each in (tmp_path / "disk").iterdir()] == ["real"]


@pytest.mark.parametrize("program", ["embed", "embed-shard"])
def test_the_current_folder_cannot_be_replaced(program: str, tmp_path: Path) -> None:
    options = ["--shard", FEW, "--model", "none", "--model-json", "none", "--outdir", "."]
    command = [*EMBED, FEW, "-o", "."] if program == "embed" else [*COMMAND, program, *options]
    done = run(tmp_path, *command)
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []
    assert done.stderr.endswith(
        "error: .: the current folder, whose place finished results cannot take; name a folder in it\n"
    )


def test_nor_can_the_root_of_the_file_system(tmp_path: Path) -> None:
    assert last_line(tmp_path, FEW, "-o", "/", code=2).startswith("/: exists already and is not empty")
    embed(tmp_path, FEW, "-o", "out")
    export = run(tmp_path, *COMMAND, "export", "--results", "out", "--to", "npy", "-o", "/")
    assert (export.returncode, export.stderr) == (
        2,
        "export.py: error: /: the root of the file system; name another --outdir\n",
    )


def test_it_runs_with_no_stream_open(tmp_path: Path) -> None:
    """As daemons and some schedulers start programs; what is opened later would have the numbers of the streams."""
    closed = shlex.join(map(str, [*EMBED, FEW, "-o", "out"])) + " <&- >&- 2>&-"
    assert run(tmp_path, "bash", "-c", closed).returncode == 0
    assert run(tmp_path, "bash", "-c", f"{shlex.join(COMMAND)} verify out >&-").returncode == 0


def test_nor_can_a_mount_point(small_disk: Path, tmp_path: Path) -> None:
    said = last_line(tmp_path, FEW, "-o", small_disk, code=2)
    assert said == f"{small_disk}: a mount point, whose place finished results cannot take; name a folder in it"


def test_a_shard_that_was_kept_and_is_damaged_is_told_with_what_to_remove(tmp_path: Path) -> None:
    fault = {"program": "virnucpro", "target": "virnucpro.merge.merge:merge", "action": "SIGKILL"}
    told = {"VIRNUCPRO_FAULT": json.dumps(fault | {"once": str(tmp_path / "killed")})}
    assert run(tmp_path, *EMBED, FEW, "-o", "out", beside=INJECTION, **told).returncode == -signal.SIGKILL
    work = tmp_path / ".out.run"
    vectors = work / "shard-00000" / "embeddings.parquet"
    content = bytearray(vectors.read_bytes())
    content[len(content) // 3] ^= 4
    vectors.write_bytes(content)
    said = last_line(tmp_path, FEW, "-o", "out", code=65)
    assert said.startswith("shard 0 (")
    assert said.endswith(f"embed it again; shards of an earlier try were kept: to begin anew, remove {work}")


def test_without_locks_it_runs_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import fcntl\n\n\ndef refuse(*_):\n    raise OSError(37, 'No locks available')\n\n\nfcntl.flock = refuse\n"
    )
    done = run(tmp_path, *EMBED, FEW, "-o", "out", beside=tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert run(tmp_path, *COMMAND, "verify", "out").returncode == 0


def test_what_a_run_left_that_was_killed_after_its_end_is_removed(tmp_path: Path) -> None:
    embed(tmp_path, FEW, "-o", "out")
    left = tmp_path / ".out.run" / "shard-00000"
    left.mkdir(parents=True)
    assert "out: exists already" in last_line(tmp_path, FEW, "-o", "out", code=2) and left.exists()
    (left.parent / "done").touch()
    assert "out: exists already" in last_line(tmp_path, FEW, "-o", "out", code=2) and not left.exists()


def test_equal_sequences_that_were_computed_each_are_reused_once(tmp_path: Path) -> None:
    records = [("a", "MKVLAAGIVG"), ("b", "MKVLAAGIVG"), ("c", "GSHMKWVTFI")]
    text = "".join(f">{name}\n{sequence}\n" for name, sequence in records)
    (tmp_path / "old.fasta").write_text(text)
    (tmp_path / "new.fasta").write_text(f"{text}>d\nMVLSPADKTN\n")
    embed(tmp_path, "old.fasta", "-o", "old", "--per_residue", "--no-dedup")
    embed(tmp_path, "new.fasta", "-o", "new", "--per_residue", "--reuse", "old")
    verified = run(tmp_path, *COMMAND, "verify", "new")
    assert verified.returncode == 0, verified.stderr
