"""Processes that are forked from one that has embedded: they are told, and do not wait for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from e2e.launch import MODEL

from virnucpro import embed
from virnucpro.errors import InputMissingError

PROGRAM = """
import os, sys, torch
from virnucpro import Embedder
from virnucpro.errors import VirnucproError
embedder = Embedder(sys.argv[1], device="cpu", threads=int(sys.argv[2]), self_check=False)
embedder.embed(["MKTAYIAKQRQISFVKSHFSRQ"])
child = os.fork()
if not child:
    try:
        print(embedder.embed(["MVLSPADKTNVKAAW"]).num_rows, flush=True)
    except VirnucproError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize(("threads", "told"), [("2", "UsageError: this process was forked from one"), ("1", "1\n")])
def test_a_fork_of_what_computed_on_several_threads_is_told_so(threads: str, told: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(MODEL), threads]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.startswith(told)


NEAREST = """
import os, sys, torch
from virnucpro import embed, nearest
from virnucpro.errors import VirnucproError
torch.set_num_threads(2)
table = embed(["MKTAYIAKQRQISFVKSHFSRQ", "MVLSPADKTNVKAAW"], model=sys.argv[1], device="cpu", self_check=False)
child = os.fork()
if not child:
    try:
        nearest(table, 1, device="cpu")
    except VirnucproError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_nor_does_a_fork_look_for_neighbours() -> None:
    command = [sys.executable, "-c", NEAREST, str(MODEL)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.startswith("UsageError: this process was forked from one")


def test_a_missing_file_is_told_before_a_model_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="no such file"):
        embed(str(tmp_path / "missing.fasta"), model=str(tmp_path / "no" / "model"), device="cpu")
