""".ci/run with a stand-in for make: what it counts, how it ends, and what it leaves out for want of time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
MAKE = """#!/bin/sh
echo "$@"
case "$*" in *"${BROKEN:-none}"*) exit 2 ;; esac
echo "${SAID:-}"
echo "4 passed, 1 skipped in 0.10s"
"""
#: What is tried after make test, by what a line says that it is left out.
REPEATED = {
    "runs on Nextflow 25.04.4 with parser v2": {"runs-25.04.4-v2"},
    "runs on Nextflow 24.10.0": {"runs-24.10.0"},
    "slurm, k8s": {"slurm", "cuda12-set-up", "k8s"},
    "cuda12": {"cuda12"},
    "Nextflow 25.04.4 with parser v2": {"e2e-25.04.4-v2"},
    "Nextflow 24.10.0": {"e2e-24.10.0"},
}
ALWAYS = {"set-up", "demo", "test"}


def ci_run(folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    (folder / "make").write_text(MAKE)
    (folder / "make").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "CI_SECONDS": "5400", **changes}
    command = ["bash", str(PROJECT / ".ci" / "run")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def steps(printed: str) -> set[str]:
    return set(re.findall(r"^== (\S+): \d+ s$", printed, re.MULTILINE))


def test_every_step_is_counted_once(tmp_path: Path) -> None:
    done = ci_run(tmp_path)
    expected = ALWAYS.union(*REPEATED.values())
    assert steps(done.stdout) == expected
    assert done.stdout.splitlines()[-1] == f"{4 * len(expected)} passed, 0 failed, {len(expected)} skipped"
    assert done.returncode == 0
    assert "left out" not in done.stdout.lower()


@pytest.mark.parametrize("broken", ["demo", "test-k8s", "test-slurm"])
def test_a_step_that_fails_fails_all_and_the_others_are_tried(broken: str, tmp_path: Path) -> None:
    done = ci_run(tmp_path, BROKEN=broken)
    tried = ALWAYS.union(*REPEATED.values()) - {broken.removeprefix("test-")}
    assert steps(done.stdout) == tried
    assert done.stdout.splitlines()[-1] == f"{4 * len(tried)} passed, 1 failed, {len(tried)} skipped"
    assert done.returncode == 1


def test_what_a_slow_machine_has_no_time_for_is_told(tmp_path: Path) -> None:
    done = ci_run(tmp_path, CI_SECONDS="100")
    assert steps(done.stdout) == ALWAYS
    *told, last = done.stdout.splitlines()
    assert told[-len(REPEATED) :] == [f"left out for want of time: {name}" for name in REPEATED]
    assert last == "12 passed, 0 failed, 3 skipped"
    assert done.returncode == 0


def test_no_test_is_begun_after_the_deadline_and_all_are_told(tmp_path: Path) -> None:
    """On a machine that is slower still."""
    (tmp_path / "conftest.py").symlink_to(PROJECT / "tests" / "conftest.py")
    (tmp_path / "test_late.py").write_text(
        "import pytest\n\n\n@pytest.fixture\ndef never():\n    raise AssertionError\n\n\n"
        "@pytest.mark.parametrize('number', range(3))\ndef test_late(number, never):\n    pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(PROJECT / "pyproject.toml")]
    command += ["--rootdir", str(tmp_path), "-n", "2", "test_late.py"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "bin"), "CI_DEADLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out for want of time: 3 tests of test_late.py" in done.stdout.splitlines()
    assert "3 skipped" in done.stdout
    said = "left out for want of time: 3 tests of test_late.py"
    assert ci_run(tmp_path, SAID=said).stdout.splitlines()[-2] == said
