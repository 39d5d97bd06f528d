"""How a program's process ends, and how it imports."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from virnucpro.errors import ExitCode
from virnucpro.process import importing

BIN = Path(__file__).parent.parent / "bin"
PROGRAM = """
import atexit, sys
from pathlib import Path
from virnucpro.cli.program import run_as_process

def main():
    atexit.register(Path("left").unlink)
    Path("left").touch()
    print("s\u00e4id")
    print("told", end="", file=sys.stderr)
    return int(sys.argv[1])

if __name__ == "__main__":
    run_as_process(main)
"""


def run(folder: Path, code: int, stdout: int | Path = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(PROGRAM)
    # A pipe or a file gets what was printed only when it is flushed; what it cannot hold is shown by its escapes.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    out = os.open(stdout, os.O_WRONLY) if isinstance(stdout, Path) else stdout
    return subprocess.run(
        [sys.executable, "program.py", str(code)],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(BIN), "PYTHONIOENCODING": "ascii"},
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("code", [0, 2, 75])
def test_a_program_ends_with_its_code_all_that_it_said_and_nothing_left(code: int, tmp_path: Path) -> None:
    done = run(tmp_path, code)
    assert (done.returncode, done.stdout, done.stderr) == (code, "s\\xe4id\n", "told")
    assert not (tmp_path / "left").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
@pytest.mark.parametrize(("code", "ended"), [(0, ExitCode.IO_ERROR), (65, 65)])
def test_what_cannot_be_said_is_an_error_of_writing(code: int, ended: int, tmp_path: Path) -> None:
    done = run(tmp_path, code, Path("/dev/full"))
    assert (done.returncode, done.stderr) == (ended, "told")


def test_nothing_is_collected_while_modules_are_imported() -> None:
    with importing():
        assert not gc.isenabled()
        with importing():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), importing():
        import no_such_module  # noqa: F401
    assert gc.isenabled()
