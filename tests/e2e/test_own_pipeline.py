"""The process that docs/by-task.md shows, in a pipeline of somebody's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from documented import code_blocks
from launch import MODEL, PROJECT, launch_environment, nextflow_command

PROTEINS = {"a": ["MKTAYIAKQR", "MVLSPADKTN"], "b": ["GSHMKWVTFI"]}


@pytest.mark.one_engine
def test_each_file_becomes_a_folder_of_whole_results(tmp_path: Path) -> None:
    (shown,) = (text for language, text in code_blocks(PROJECT / "docs" / "by-task.md") if language == "nextflow")
    (tmp_path / "own.nf").write_text(shown)
    (tmp_path / "proteins").mkdir()
    for name, sequences in PROTEINS.items():
        records = (f">{name}{number}\n{sequence}\n" for number, sequence in enumerate(sequences))
        (tmp_path / "proteins" / f"{name}.fasta").write_text("".join(records))
    installed = tmp_path / "path" / "virnucpro"
    installed.parent.mkdir()
    installed.write_text(f'#!/bin/sh\nPYTHONPATH="{PROJECT}/bin" exec "{sys.executable}" -m virnucpro "$@"\n')
    installed.chmod(0o755)

    environment = launch_environment({"PATH": f"{installed.parent}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""})
    command = [*nextflow_command(), "run", "own.nf", "-ansi-log", "false", "--model", str(MODEL)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    for name, sequences in PROTEINS.items():
        assert f"{name}: 1 file\n" in done.stdout
        (embeddings,) = (tmp_path / "work").glob(f"*/*/{name}/embeddings")
        assert pq.read_table(embeddings)["id"].to_pylist() == [f"{name}{number}" for number in range(len(sequences))]
        verify = [sys.executable, PROJECT / "bin" / "verify.py", embeddings.parent]
        assert subprocess.run(verify, env=environment, capture_output=True).returncode == 0
