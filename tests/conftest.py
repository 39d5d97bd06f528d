"""Fixtures for all tests. Nothing here imports torch: most tests do without."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

# Before PyTorch is imported: where tests run side by side, its threads wait for each other most of their time, and by
# itself OpenMP has them wait with a core each. Tasks that tests start have it from here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shared machine is slow at times; what a property test finds does not depend on that.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
#: Seconds since 1970 after which no test is begun, by .ci/run.
DEADLINE = float(os.environ.get("CI_DEADLINE", "inf"))
NO_TIME = "left out for want of time"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU")
    if config.getoption("--reliability") and not hasattr(config, "workerinput"):
        from reliability import Observer

        config.pluginmanager.register(Observer())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that needs a GPU is skipped where there is none."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    if time.time() > DEADLINE:
        pytest.skip(NO_TIME)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", ())
    late = [report for report in skipped if NO_TIME in str(report.longrepr)]
    if late:
        files = sorted({report.nodeid.partition("::")[0] for report in late})
        terminalreporter.write_line(f"{NO_TIME}: {len(late)} tests of {', '.join(files)}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", action="store_true", help="make docs/reliability.md of what is seen")


def random_sequences(lengths: Sequence[int], seed: int = 0) -> list[str]:
    """Random proteins of the given lengths, the same for the same seed."""
    generator = random.Random(seed)
    return ["".join(generator.choices(RESIDUES, k=length)) for length in lengths]


@pytest.fixture(scope="session")
def proteins() -> Callable[..., list[str]]:
    """Make random proteins: ``proteins(lengths, seed=0)``."""
    return random_sequences


def write_records(path: Path, records: Iterable[tuple[str, str]]) -> Path:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records))
    return path


@pytest.fixture
def write_fasta(tmp_path: Path) -> Callable[..., Path]:
    """Write (id, sequence) pairs: ``write_fasta(pairs, 'name.fasta')``."""

    def write(records: Iterable[tuple[str, str]], name: str = "input.fasta") -> Path:
        return write_records(tmp_path / name, records)

    return write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
