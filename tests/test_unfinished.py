"""An error that comes between any two lines, as Ctrl-C does, leaves nothing that is not finished."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from descriptions import describe
from merge.merge_runs import Run
from pipeline.models import save_fair_esm, small_esm2

from virnucpro.config import EmbedConfig, SplitConfig
from virnucpro.errors import run_reporting_errors
from virnucpro.export.config import ExportConfig
from virnucpro.export.export import export
from virnucpro.merge.merge import merge
from virnucpro.model.describe import describe_model
from virnucpro.pipeline.embed import embed_shard
from virnucpro.split.split import split

#: Where folders and files are begun, finished and removed.
WHERE = ("output/atomic.py", "output/writer.py", "merge/merge.py", "split/split.py", "export/folder.py")
#: Lines, spread over all, before which the error comes.
MOMENTS = 60


@dataclass
class Interruption:
    """Counts the lines that this process runs, and raises before one of them."""

    at: int = -1
    lines: int = 0
    process: int = field(default_factory=os.getpid)

    def __call__(self, frame: FrameType, event: str, _: object) -> Interruption | None:
        if not frame.f_code.co_filename.endswith(WHERE) or os.getpid() != self.process:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                raise KeyboardInterrupt
        return self


@contextmanager
def traced(interruption: Interruption) -> Iterator[Interruption]:
    before = sys.gettrace()
    sys.settrace(interruption)
    try:
        yield interruption
    finally:
        sys.settrace(before)


Made = Callable[[Path], tuple[Callable[[], Any], Path]]


def merging(folder: Path) -> tuple[Callable[[], Any], Path]:
    config = Run(folder, [7, 3, 8, 7, None, 9], shards=2, residues=True).config()
    return lambda: merge(config), config.outdir


def splitting(folder: Path) -> tuple[Callable[[], Any], Path]:
    describe(layers=6, embed_dim=320).write(folder / "model.json")
    (folder / "in.fasta").write_text(">a\nMKV\n>b\nMKTAY\n")
    config = SplitConfig(
        inputs=(folder / "in.fasta",), outdir=folder / "split", model_json=folder / "model.json", cpus=1
    )
    return lambda: split(config), config.outdir / "split_summary.json"


def embedding(folder: Path) -> tuple[Callable[[], Any], Path]:
    save_fair_esm(small_esm2(), folder / "small.pt")
    describe_model(folder / "small.pt").write(folder / "model.json")
    (folder / "shard-00000.fasta").write_text(">0\nMKTAY\n>1\nMKV\n")
    paths = {"shard": folder / "shard-00000.fasta", "model": folder / "small.pt", "model_json": folder / "model.json"}
    config = EmbedConfig(**paths, outdir=folder / "out", device="cpu", self_check=False)
    return lambda: embed_shard(config), config.outdir


def exporting(folder: Path) -> tuple[Callable[[], Any], Path]:
    run = Run(folder, [7, 3, 8])
    merge(run.config())
    config = ExportConfig(results=run.config().outdir, outdir=folder / "exported", to="npy")
    return lambda: export(config), config.outdir


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


@pytest.mark.faults(
    "Ctrl-C between any two lines that make, finish or remove files",
    "split, shard, merge, export",
    "130; nothing left that is not finished",
)
@pytest.mark.parametrize("made", [splitting, embedding, merging, exporting])
def test_an_error_between_any_two_lines_leaves_nothing_unfinished(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "whole").mkdir()
    run, result = made(tmp_path / "whole")
    with traced(Interruption()) as counted:
        run()
    assert result.exists() and counted.lines > MOMENTS
    for moment in range(1, counted.lines, max(counted.lines // MOMENTS, 1)):
        folder = tmp_path / str(moment)
        folder.mkdir()
        run, result = made(folder)
        with traced(Interruption(moment)) as interruption:
            code = run_reporting_errors("unfinished", lambda run=run: run() and None)
        assert code == 130, moment
        assert interruption.lines >= moment
        assert left(folder) == [], moment
        assert capsys.readouterr().err == "unfinished: error: interrupted; run again\n"
