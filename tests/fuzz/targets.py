"""What fuzzers call with bytes: readers of foreign files, which may refuse them in a line or read them rightly.

A target raises where a reader ends otherwise than a program may: with a traceback, with a code that is not for bad
input, or with a result that another way of reading the same bytes does not give.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from fasta_rows import rows_of_blocks, rows_of_scan
from merge.merge_runs import Run
from safetensors.torch import save_file

from virnucpro.config import GAPS
from virnucpro.errors import ExitCode, VirnucproError, run_reporting_errors
from virnucpro.merge.merge import merge as merge_inputs
from virnucpro.model.describe import describe_model
from virnucpro.output.contracts import ModelDescription, RunSummary, ShardSummary, SplitSummary

CORPUS = Path(__file__).parent / "corpus"
#: How a program ends that was given foreign bytes.
_ENDS = (ExitCode.OK, ExitCode.BAD_DATA, ExitCode.NO_INPUT, ExitCode.MODEL_UNAVAILABLE)
_SIZES = (1, 2, 3, 5, 7, 64, 1 << 18)
_RECORDS = (ModelDescription, SplitSummary, ShardSummary, RunSummary)
_CHECKPOINTS = ("model.pt", "model.safetensors", "config.json")


@cache
def scratch() -> Path:
    """A folder for the time of this process."""
    folder = Path(tempfile.mkdtemp(prefix="virnucpro-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def ending(read: Callable[[], object]) -> int:
    """The exit code of a program that does this, which says one line or nothing."""
    with contextlib.redirect_stderr(io.StringIO()) as told, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        code = run_reporting_errors("fuzz", lambda: read() and None)
    assert not [each for each in warned if each.category is UserWarning], warned[0].message
    assert code in _ENDS, f"{code}: {told.getvalue()}"
    assert told.getvalue().count("\n") == (code != 0), told.getvalue()
    return code


def fasta(data: bytes) -> None:
    """Both readers of FASTA, by blocks of any size; the first byte chooses the size and what becomes of gaps."""
    path, choice = scratch() / "input.fasta", data[0] if data else 0
    path.write_bytes(data[1:])
    size, gaps = _SIZES[choice % len(_SIZES)], GAPS[choice // len(_SIZES) % len(GAPS)]

    def outcome(read: Callable[[], object]) -> object:
        found: list[object] = []

        def keep() -> None:
            try:
                found.append(read())
            except VirnucproError as error:
                found.append((type(error), str(error)))
                raise

        ending(keep)
        return found[0] if found else None

    expected = outcome(lambda: rows_of_scan(path, gaps=gaps))
    assert outcome(lambda: rows_of_scan(path, size, gaps=gaps)) == expected
    assert outcome(lambda: rows_of_blocks(path, size, gaps=gaps)) == expected
    assert outcome(lambda: rows_of_blocks(path, size, in_place=True, gaps=gaps)) == expected


def tiny_weights() -> dict[str, torch.Tensor]:
    """Tensors of an ESM-2 of one layer of width 4, in fair-esm's names."""
    generator, dim = torch.Generator().manual_seed(0), 4
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (33, dim), "layers.0.self_attn.rot_emb.inv_freq": (1,)}
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        shapes |= {f"layers.0.self_attn.{name}.weight": (dim, dim), f"layers.0.self_attn.{name}.bias": (dim,)}
    for name in ("layers.0.self_attn_layer_norm", "layers.0.final_layer_norm", "emb_layer_norm_after"):
        shapes |= {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    shapes |= {"layers.0.fc1.weight": (4 * dim, dim), "layers.0.fc1.bias": (4 * dim,)}
    shapes |= {"layers.0.fc2.weight": (dim, 4 * dim), "layers.0.fc2.bias": (dim,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def hugging_face_weights() -> dict[str, torch.Tensor]:
    """The same in the names of transformers, by which a config.json is asked for the sizes."""
    attention, layer = "attention.self", "encoder.layer.0"
    names = {f"self_attn.{name[0]}_proj": f"{attention}.{name}" for name in ("query", "key", "value")}
    names |= {"self_attn.out_proj": "attention.output.dense", "self_attn_layer_norm": "attention.LayerNorm"}
    names |= {"final_layer_norm": "LayerNorm", "fc1": "intermediate.dense", "fc2": "output.dense"}
    names = {f"layers.0.{ours}.": f"{layer}.{theirs}." for ours, theirs in names.items()}
    names |= {"embed_tokens.": "embeddings.word_embeddings.", "emb_layer_norm_after.": "encoder.emb_layer_norm_after."}
    return {
        theirs + key.removeprefix(ours): value
        for key, value in tiny_weights().items()
        for ours, theirs in names.items()
        if key.startswith(ours)
    }


def checkpoint(data: bytes) -> None:
    """A file of weights, or the config.json beside whole ones; the first byte chooses."""
    folder, name = scratch() / "model", _CHECKPOINTS[(data[0] if data else 0) % len(_CHECKPOINTS)]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if name == "config.json":
        save_file(hugging_face_weights(), folder / "model.safetensors")
    (folder / name).write_bytes(data[1:])
    ending(lambda: describe_model(folder if name == "config.json" else folder / name))


def contracts(data: bytes) -> None:
    """Every record that a process hands to another as JSON; what is read is written and read again as the same."""
    path = scratch() / "record.json"
    for record in _RECORDS:
        path.write_bytes(data)

        def read(record: type = record) -> None:
            found = record.read(path)
            found.write(path)
            assert record.read(path) == found

        ending(read)


@dataclass(frozen=True)
class _Merged:
    run: Run
    files: Sequence[Path]
    truth: dict[str, bytes]


def _contents(results: Path) -> dict[str, bytes]:
    return {str(path.relative_to(results)): path.read_bytes() for path in results.rglob("*") if path.is_file()}


@cache
def _merged() -> _Merged:
    first = Run(scratch() / "first", [3, 4, 3, 5], residues=True)
    merge_inputs(first.config())
    earlier = [(first.config().outdir, first.kept())]
    run = Run(scratch() / "now", [7, 3, 8, 7, None, 9, 5, 10], shards=2, earlier=earlier, residues=True)
    files = [path for folder in (run.folder, first.config().outdir) for path in folder.rglob("*") if path.is_file()]
    merge_inputs(run.config())
    truth = _contents(run.config().outdir)
    shutil.rmtree(run.config().outdir)
    return _Merged(run, sorted(files), truth)


def merge(data: bytes) -> None:
    """One input of the merge in which bytes are replaced, put in or cut out; results are the truth, or are not there.

    Bytes: which file, how, where (three bytes), and what.
    """
    known, head, new = _merged(), data[:5].ljust(5, b"\0"), data[5:]
    path, results = known.files[head[0] % len(known.files)], known.run.config().outdir
    before = path.read_bytes()
    at = int.from_bytes(head[2:], "big") % (len(before) + 1)
    kept = (before[at + len(new) :], before[at:], before[at + len(new) + 1 :])[head[1] % 3]
    path.write_bytes(before[:at] + (b"" if head[1] % 3 == 2 else new) + kept)
    try:
        code = ending(lambda: merge_inputs(known.run.config()))
        assert results.exists() == (code == 0), path
        assert code != 0 or _contents(results) == known.truth, path
    finally:
        path.write_bytes(before)
        shutil.rmtree(results, ignore_errors=True)


TARGETS: dict[str, Callable[[bytes], None]] = {each.__name__: each for each in (fasta, checkpoint, contracts, merge)}
