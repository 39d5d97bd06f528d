"""Each kind of failure ends a program with one line and its own exit code, whatever raised it."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from descriptions import describe
from merge.merge_runs import Run
from pipeline.models import small_esm2

from virnucpro.errors import DataError, ExitCode, FastaFormatError, run_reporting_errors, writing_into
from virnucpro.machine import physical_memory_bytes
from virnucpro.merge.merge import merge
from virnucpro.output.damage import reading

BIN = Path(__file__).parents[1] / "bin"


def program(name: str, *arguments: object) -> tuple[int, str]:
    """Exit code and last line; nothing but one line is said."""
    command = [sys.executable, str(BIN / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{name}: error: "), done.stderr
    return done.returncode, lines[0]


def merged_with(run: Run, **changes: object) -> tuple[int, str]:
    files = {"manifest": "manifest.parquet", "rejected": "rejected.tsv", "split-summary": "split_summary.json"}
    files |= {"model-json": "model.json", "shards-in": ".", "outdir": "results"}
    paths = {name: run.folder / file for name, file in files.items()} | changes
    return program("merge_embeddings.py", *(f"--{name}={path}" for name, path in paths.items()))


@pytest.mark.parametrize(
    ("errors", "code", "said"),
    [
        (MemoryError(), 75, "memory does not suffice; give the task more memory"),
        (MemoryError("Unable to allocate 9 GiB"), 75, "Unable to allocate 9 GiB; give the task more memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 75, "give the task more memory"),
        (OSError("Couldn't deserialize thrift"), 65, "a file is damaged: copy it again, or run again"),
        (KeyboardInterrupt(), 130, "interrupted; run again"),
        (OSError(errno.ENOSPC, "No space left on device", "/full/x"), 74, "/full/x'; check free space and permissions"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "a"), 66, "'a'; check the path"),
        (OSError(errno.EISDIR, "Is a directory", "a"), 66, "'a'; check the path"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a"), 66, "'a'; check the path"),
    ],
)
def test_what_the_system_raises(
    errors: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise errors

    assert run_reporting_errors("x.py", fail) == code
    told = capsys.readouterr().err
    assert told.startswith("x.py: error: ") and told.endswith(f"{said}\n") and told.count("\n") == 1


@pytest.mark.faults("links in a circle", "`merge_embeddings.py`", "66")
@pytest.mark.parametrize("option", ["manifest", "rejected", "split-summary", "model-json"])
def test_links_in_a_circle_are_no_file(tmp_path: Path, option: str) -> None:
    run = Run(tmp_path / "run", [0, 1])
    (tmp_path / "circle").symlink_to("circle")
    code, line = merged_with(run, **{option: tmp_path / "circle"})
    assert code == ExitCode.NO_INPUT and "circle" in line


@pytest.mark.faults("links in a circle", "`split_fasta.py`, `fetch_model.py`", "66")
def test_an_input_that_is_a_circle_of_links_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    describe(layers=6, embed_dim=320).write(tmp_path / "model.json")
    options = ("--model-json", tmp_path / "model.json", "--outdir", tmp_path / "split")
    code, line = program("split_fasta.py", tmp_path / "circle", *options)
    assert code == ExitCode.NO_INPUT and "circle" in line
    code, line = program("fetch_model.py", "--model", tmp_path / "circle", "--outdir", tmp_path)
    assert code == ExitCode.NO_INPUT and "circle" in line


@pytest.mark.faults("JSON nested 100,000 deep, or of 5,000 digits", "`merge_embeddings.py`", "65")
@pytest.mark.parametrize("text", ["[" * 100_000, '{"name": ' * 50_000, '{"name": 1' + "0" * 5000 + "}"])
def test_json_that_no_parser_takes_is_bad_data(tmp_path: Path, text: str) -> None:
    run = Run(tmp_path / "run", [0, 1])
    for option in ("model-json", "split-summary", "reuse-from"):
        (tmp_path / "deep.json").write_text(text)
        code, line = merged_with(run, **{option: tmp_path / "deep.json"})
        assert code == ExitCode.BAD_DATA and "deep.json" in line


@pytest.mark.faults("a checkpoint of meta tensors", "`fetch_model.py`", "69")
def test_a_checkpoint_without_numbers_is_refused(tmp_path: Path) -> None:
    state = {name: value.to("meta") for name, value in small_esm2().state_dict().items()}
    torch.save({"model": state}, tmp_path / "small.pt")
    code, line = program("fetch_model.py", "--model", tmp_path / "small.pt", "--outdir", tmp_path)
    assert code == ExitCode.MODEL_UNAVAILABLE and "holds no numbers (a meta or sparse tensor)" in line


@pytest.mark.faults("results cut short", "`report.py`", "65, with the file")
@pytest.mark.parametrize(
    "name",
    [
        *("metrics/shards.parquet", "metrics/batches.parquet", "metrics/gpu_metrics.parquet"),
        *("manifest.parquet", "embeddings/part-00000.parquet"),
    ],
)
def test_a_report_of_damaged_results_is_bad_data(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path, [0, 1])
    merge(run.config())
    path = tmp_path / "results" / name
    path.write_bytes(path.read_bytes()[:-100])
    code, line = program("report.py", "--results", tmp_path / "results", "--outdir", tmp_path / "page")
    assert code == ExitCode.BAD_DATA and f"{name}: unreadable" in line


@pytest.mark.faults("results cut short or overwritten", "`neighbours.py`", "65, with the file")
def test_neighbours_in_damaged_results_are_bad_data(tmp_path: Path) -> None:
    merge(Run(tmp_path, [0, 1]).config())
    path = tmp_path / "results" / "embeddings" / "part-00000.parquet"
    whole = path.read_bytes()
    options = ("--results", tmp_path / "results", "--neighbours", 1, "--outdir", tmp_path / "near", "--device", "cpu")
    group = pq.read_metadata(path).row_group(0)
    columns = map(group.column, range(group.num_columns))
    flipped = bytearray(whole)
    flipped[next(each for each in columns if each.path_in_schema.startswith("embedding.")).data_page_offset + 99] ^= 1
    for damaged in (whole[:-100], whole[:40] + bytes(100) + whole[140:], flipped):
        path.write_bytes(damaged)
        code, line = program("neighbours.py", *options)
        assert code == ExitCode.BAD_DATA and "part-00000.parquet: not as it was written" in line
    digests = tmp_path / "results" / "digests.xxh128"
    digests.rename(tmp_path / digests.name)
    for damaged in (whole[:-100], whole[:40] + bytes(100) + whole[140:]):
        path.write_bytes(damaged)
        code, line = program("neighbours.py", *options)
        assert code == ExitCode.BAD_DATA and "part-00000.parquet: " in line
    (tmp_path / digests.name).rename(digests)
    path.write_bytes(whole)
    path.with_name("part-00001.parquet").write_bytes(b"of another run")
    subprocess.run([sys.executable, BIN / "neighbours.py", *map(str, options)], check=True)


def test_an_interrupted_program_says_one_line(tmp_path: Path) -> None:
    describe(layers=6, embed_dim=320).write(tmp_path / "model.json")
    command = [sys.executable, str(BIN / "split_fasta.py"), "-", "--model-json", str(tmp_path / "model.json")]
    with subprocess.Popen(
        [*command, "--outdir", str(tmp_path / "split")], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("split/.split.partial")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert (running.returncode, said) == (130, "split_fasta.py: error: interrupted; run again\n")
    assert list((tmp_path / "split").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "a GPU with more memory or a free one"),
        (RuntimeError("CUDA error: out of memory"), "use a GPU with more memory or a free one"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), "use a GPU with more memory or a free one"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "or a free one"),
        (
            RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with"),
            "encountered; the task can",
        ),
        (torch.AcceleratorError("unspecified launch failure"), "the task can be tried again"),
        (RuntimeError("Triton Error [CUDA]: device-side assert triggered"), "the task can be tried again"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "more memory"),
        (RuntimeError("unable to mmap 90 bytes from file </m.pt>: Cannot allocate memory (12)"), "more memory"),
        (pa.ArrowMemoryError("malloc of size 64 failed"), "give the task more memory"),
        (RuntimeError("size mismatch in /home/ann/cuda/models: 3 and 4"), ""),
        (RuntimeError("expected a CUDA tensor"), ""),
        (RuntimeError(f"DefaultCPUAllocator: not enough memory: you tried to allocate {1 << 60} bytes"), ""),
    ],
    ids=lambda value: str(value)[:50],
)
def test_errors_of_the_device_and_of_memory_can_be_tried_again_and_no_others(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    if said:
        assert run_reporting_errors("x.py", fail) == ExitCode.TRY_AGAIN
        assert said in capsys.readouterr().err
    else:
        with pytest.raises(RuntimeError) as caught:
            run_reporting_errors("x.py", fail)
        assert caught.value is error


def test_what_a_damaged_file_asks_for_is_no_lack_of_memory() -> None:
    for size, damaged in ((physical_memory_bytes() + 1, True), (1 << 20, False)):
        with pytest.raises(DataError if damaged else MemoryError), reading("x.parquet", "copy it"):
            raise pa.ArrowMemoryError(f"malloc of size {size} failed")


def test_a_disk_that_names_no_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with writing_into(tmp_path / "results"):
            raise OSError(errno.ENOSPC, "Error writing bytes to file")

    assert run_reporting_errors("x.py", fail) == ExitCode.IO_ERROR
    said = f"No space left on device: '{tmp_path}/results'; check free space and permissions"
    assert capsys.readouterr().err.endswith(f"{said}\n")


def test_an_error_of_a_file_goes_to_another_process() -> None:
    made = FastaFormatError("no residue", file="a.fasta", line=3, remedy="correct it")
    told = pickle.loads(pickle.dumps(made))
    assert (str(told), told.file, told.line) == ("a.fasta, line 3: no residue; correct it", "a.fasta", 3)
