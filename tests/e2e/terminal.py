"""Start the pipeline on a terminal, where Nextflow draws its tasks anew again and again."""

from __future__ import annotations

import errno
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

from launch import Launch, launch_command, launch_environment, quiet

CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def launch_on_terminal(folder: Path, *arguments: str | Path, interrupt_at: str | None = None) -> Launch:
    """Run the pipeline as ``launch`` does, with a pseudo-terminal for its input and output.

    Args:
        interrupt_at: text at whose first sight the run is sent what Ctrl-C sends.
    """
    command = launch_command(*arguments)
    command[command.index("-ansi-log") + 1] = "true"
    folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        # A shell has its background jobs ignore what Ctrl-C sends.
        ["env", "--default-signal=INT", *command],
        cwd=folder,
        env=launch_environment({"TERM": "xterm", "COLUMNS": "160"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    printed = b""
    while chunk := _read(ours):
        printed += chunk
        if interrupt_at and interrupt_at.encode() in printed:
            os.killpg(process.pid, signal.SIGINT)
            interrupt_at = None
    os.close(ours)
    text = CONTROL.sub("", printed.decode()).replace("\r", "")
    return quiet(Launch(process.wait(timeout=300), text, folder))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError as error:
        # Linux says so when the last process has left the terminal.
        if error.errno != errno.EIO:
            raise
        return b""
