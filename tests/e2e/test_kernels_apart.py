"""COMPILE_KERNELS beside the other steps, with a pretended GPU: a run needs neither it nor its success."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_runs import assert_whole, options
from launch import PROJECT, Launch, launch

LOCKS = Path("/tmp/virnucpro-gpu-locks")
#: Says what it was given; $COMPILING is what it does then.
COMPILER = '#!/bin/bash\necho "$@" >>"$VIRNUCPRO_TEST_ARGUMENTS"\neval "$COMPILING"\n'


@pytest.fixture(scope="module")
def one_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A driver that lists a card, eight cores, and programs that compute on the CPU what is for a GPU."""
    folder = tmp_path_factory.mktemp("one_gpu")
    real = PROJECT / "bin" / "embed_shard.py"
    for name, text in {
        "nvidia-smi": f'#!/bin/bash\n[[ $* == *uuid* ]] && echo "0, GPU-{folder.name}" || echo "0, NVIDIA L4"\n',
        "embed_shard.py": f'#!/bin/bash\nexec {real} "${{@/#cuda/cpu}}"\n',
        "compile_kernels.py": COMPILER,
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    yield {"PATH": f"{folder}:{os.environ['PATH']}", "NXF_OPTS": "-XX:ActiveProcessorCount=8"}
    (LOCKS / f"GPU-{folder.name}").unlink(missing_ok=True)


def embedded(
    folder: Path, model: Path, one_gpu: dict[str, str], compiling: str, *others: str, may_warn: bool = False
) -> Launch:
    """A run on the GPU by a user whose home is beside its folder."""
    home = {"HOME": str(folder.parent / "home"), "NXF_HOME": os.environ.get("NXF_HOME", str(Path.home() / ".nextflow"))}
    told = {"COMPILING": compiling, "VIRNUCPRO_TEST_ARGUMENTS": str(folder.parent / "arguments")}
    given = [*options(model), "--precision", "fp32", "--gpus", "1", *others]
    return launch(folder, *given, environment={**one_gpu, **home, **told}, may_warn=may_warn)


@pytest.mark.one_engine
def test_kernels_are_compiled_once_for_all_runs(
    tmp_path: Path, model: Path, whole: Launch, one_gpu: dict[str, str]
) -> None:
    mark = 'mkdir -p "$TRITON_CACHE_DIR"; touch "$TRITON_CACHE_DIR/$3"'
    first = embedded(tmp_path / "first", model, one_gpu, mark, "--report", "false")
    assert_whole(first, whole)
    assert first.statuses()["COMPILE_KERNELS"] == {"COMPLETED"}
    (told,) = (tmp_path / "arguments").read_text().splitlines()
    (kept,) = (tmp_path / "home" / ".triton" / "cache").iterdir()
    expected = [f"--model={model}", "--mark", kept.name, "--layers=-1", "--pooling=mean", "--precision=fp32"]
    assert shlex.split(told) == expected

    again = embedded(tmp_path / "again", model, one_gpu, mark, "--report", "false")
    assert again.code == 0, again.output
    assert "COMPILE_KERNELS" not in again.output
    # Another model's are others.
    other = embedded(tmp_path / "other", model, one_gpu, mark, "--report", "false", "--pooling", "mean,max")
    assert other.statuses()["COMPILE_KERNELS"] == {"COMPLETED"}


@pytest.mark.faults("kernels that cannot be compiled ahead", "`nextflow run`", "the run's results, and a line")
def test_a_run_goes_on_where_they_cannot_be_compiled(
    tmp_path: Path, model: Path, whole: Launch, one_gpu: dict[str, str]
) -> None:
    run = embedded(tmp_path / "run", model, one_gpu, "echo no compiler >&2; exit 75", may_warn=True)
    assert_whole(run, whole)
    assert run.statuses()["COMPILE_KERNELS"] == {"FAILED"}
    assert (
        "Process `COMPILE_KERNELS (small.pt)` terminated with an error exit status (75) -- Error is ignored"
        in run.output
    )
    assert f"Report: {run.results}/report/multiqc_report.html" in run.output


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("cores", "extra"), [("4", []), ("8", ["-c", "selected.config"])], ids=["no core is left", "other machines"]
)
def test_nothing_is_compiled_apart_where_shards_would_wait_or_are_elsewhere(
    tmp_path: Path, model: Path, one_gpu: dict[str, str], cores: str, extra: list[str]
) -> None:
    (tmp_path / "run").mkdir()
    # A stub of an executor: only its name counts here.
    (tmp_path / "run" / "selected.config").write_text("process { withName: NEIGHBOURS { executor = 'slurm' } }\n")
    fewer = {**one_gpu, "NXF_OPTS": f"-XX:ActiveProcessorCount={cores}"}
    run = embedded(tmp_path / "run", model, fewer, "exit 1", *extra, "--report", "false", may_warn=True)
    assert run.code == 0, run.output
    assert "COMPILE_KERNELS" not in run.output
