"""What the split tells of its input files: their bytes as they are given, in whatever way they are read."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from pathlib import Path

import xxhash
from split_program import PROJECT, ledger, split

from virnucpro.output.contracts import SplitSummary

PROTEINS = b"".join(b">p%d\nMKV%s\n" % (number, b"ACDEFGHIKL" * (number % 9)) for number in range(20))


def test_inputs_are_told_by_their_bytes_in_their_order(tmp_path: Path) -> None:
    contents = {
        "z.fasta": PROTEINS,
        "a.fasta.gz": gzip.compress(PROTEINS),
        "rows.tsv": b"id\tsequence\nq\tMKV\n",
        "nothing.fasta": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    columns = ("--id-column", "id", "--sequence-column", "sequence")
    split(tmp_path, *(tmp_path / name for name in contents), *columns)
    found = SplitSummary.read(tmp_path / "split" / "split_summary.json").inputs
    assert [(each.name, each.size, each.digest) for each in found] == [
        (str(tmp_path / name), len(content), xxhash.xxh3_128_hexdigest(content)) for name, content in contents.items()
    ]


def test_many_processes_tell_the_same(tmp_path: Path) -> None:
    content = PROTEINS * 20_000
    (tmp_path / "large.fasta").write_bytes(content)
    split(tmp_path, tmp_path / "large.fasta", "--cpus", "2")
    (found,) = SplitSummary.read(tmp_path / "split" / "split_summary.json").inputs
    assert (found.size, found.digest) == (len(content), xxhash.xxh3_128_hexdigest(content))


def test_a_pipe_is_opened_once(tmp_path: Path) -> None:
    """What its writer has put into it is lost where a reader opens it, looks at it and closes it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Without a writer, who opens it waits.
    looking = "import sys; from pathlib import Path; from virnucpro.fasta_source import FastaSource as F; "
    looking += "source = F(Path(sys.argv[1])); assert (source.head(), source.plain_file()) == (b'', None)"
    subprocess.run([sys.executable, "-c", looking, pipe], cwd=PROJECT / "bin", timeout=60, check=True)
    writer = threading.Thread(target=pipe.write_bytes, args=(PROTEINS,))
    writer.start()
    split(tmp_path, pipe)
    writer.join()
    assert len(ledger(tmp_path)) == 20


def test_a_pipe_in_a_folder_ends_the_run(tmp_path: Path) -> None:
    """Who opens it waits for its writer, which may never come."""
    (tmp_path / "inputs").mkdir()
    (tmp_path / "a.fasta").write_bytes(PROTEINS)
    (tmp_path / "inputs" / "a.fasta").symlink_to(tmp_path / "a.fasta")
    split(tmp_path, tmp_path / "inputs")
    os.mkfifo(tmp_path / "inputs" / "b.fasta")
    assert "b.fasta: a pipe or device in a folder; " in split(tmp_path, tmp_path / "inputs", code=66)


def test_a_link_to_nothing_in_a_folder_ends_the_run(tmp_path: Path) -> None:
    """Its records would not be there, and nobody would know."""
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "a.fasta").write_bytes(PROTEINS)
    (tmp_path / "inputs" / "b.fasta").symlink_to("moved.fasta")
    assert "b.fasta: no such file; check the path" in split(tmp_path, tmp_path / "inputs", code=66)
