"""Progress on a terminal and in a log."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest

from virnucpro.pipeline import progress
from virnucpro.pipeline.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Progress("shard-00000.fasta", 40, 4000)
    for _ in range(3):
        time.sleep(0.12)
        shown.advance(10, 1000)
    shown.close()
    last = terminal.getvalue().split("\r")[-1]
    assert "shard-00000.fasta:  75%" in last
    assert "3.00k/4.00k" in last
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, [\d.]+k? tokens/s, 30 of 40 sequences\]", last)


def test_a_log_gets_a_plain_line_now_and_then_however_long_a_batch_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0.1)
    shown = Progress("shard-00000.fasta", 40, 4000)
    time.sleep(0.15)
    shown.advance(10, 1000)
    time.sleep(0.3)
    shown.close()
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 4
    assert lines[0] == "shard-00000.fasta: 0 of 40 sequences, waiting for the first batch"
    for line in lines[1:]:
        pattern = r"shard-00000.fasta: 10 of 40 sequences, [\d,]+ tokens/s, about 0:00:0\d left"
        assert re.fullmatch(pattern, line)
    time.sleep(0.15)
    assert capsys.readouterr().err == ""


def test_a_log_of_a_short_shard_gets_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert progress.LOG_INTERVAL == 30
    shown = Progress("shard-00000.fasta", 40, 4000)
    shown.advance(40, 4000)
    shown.close()
    assert capsys.readouterr().err == ""
