"""Options by name from Python: what is taken, what is refused, and what a type checker says of it."""

from __future__ import annotations

import os
import subprocess
import sys
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Bio.Seq import MutableSeq, Seq
from Bio.SeqRecord import SeqRecord
from e2e.launch import MODEL

import virnucpro
from virnucpro import Embedder, embed, nearest
from virnucpro.api.embedder import EmbedderOptions
from virnucpro.errors import DataError, UsageError

RESIDUES = ["MKTAYIAKQRQISFVKSHFSRQ", "MVLSPADKTNVKAAW", "MGSSHHHHHHSSGLVPRGSH"]


@pytest.mark.parametrize("kind", [Seq, MutableSeq, lambda text: SeqRecord(Seq(text)), np.array])
def test_one_sequence_of_another_kind_is_not_taken_for_its_letters(kind: Callable[[str], Any]) -> None:
    with pytest.raises(UsageError, match=r"^sequences are of type \w+; .*give a list"):
        embed(kind("MKTAYIAKQR"), model=MODEL, device="cpu", progress=False)


def test_numbers_of_neighbours() -> None:
    table = embed(RESIDUES, model=MODEL, device="cpu", progress=False, self_check=False)
    assert nearest(table, np.int64(1), device="cpu").num_rows == 3
    assert nearest(table, 10**9, device="cpu").num_rows == 6
    for count in (1.5, "3", None, True):
        with pytest.raises(UsageError, match="but must be a whole number"):
            nearest(table, count, device="cpu")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="of type DataFrame; give the Arrow table that embed returns"):
        nearest(table.to_pandas(), 1, device="cpu")


@pytest.mark.parametrize(
    "call",
    [
        lambda: Embedder(MODEL, pooling=("median",)),
        lambda: Embedder(MODEL, pooling="mean,bos"),
        lambda: Embedder(MODEL, device="tpu"),
        lambda: Embedder(max_length=0),
        lambda: Embedder(max_length="5"),  # type: ignore[arg-type]
        lambda: Embedder(max_length=5.5),  # type: ignore[arg-type]
        lambda: Embedder(max_length=None),  # type: ignore[arg-type]
        lambda: Embedder(layers="3"),  # type: ignore[arg-type]
        lambda: Embedder(layers=(1.5,)),  # type: ignore[arg-type]
        lambda: Embedder(pooling=None),  # type: ignore[arg-type]
        lambda: Embedder(device=None),  # type: ignore[arg-type]
        lambda: Embedder(per_residue="false"),  # type: ignore[arg-type]
        lambda: Embedder(None),  # type: ignore[arg-type]
    ],
)
def test_options_are_checked_before_a_model_is_loaded(call: Callable[[], Embedder]) -> None:
    with pytest.raises(UsageError):
        call()


def test_one_pooling_and_one_layer_need_no_tuple() -> None:
    one = Embedder(MODEL, pooling="bos", layers=-1)
    assert (one.pooling, one.layers) == (("bos",), (-1,))


def test_numbers_of_numpy_and_paths_as_text_are_taken(tmp_path: Path) -> None:
    options: typing.Any = {"max_length": np.int64(5), "layers": np.array([2, 3]), "per_residue": np.bool_(True)}
    table = embed(RESIDUES, model=MODEL, device="cpu", model_cache=str(tmp_path), **options)
    plain = embed(RESIDUES, model=MODEL, device="cpu", max_length=5, layers=[2, 3], per_residue=True)
    assert table.equals(plain, check_metadata=True)
    assert Embedder(MODEL, layers=typing.cast(int, np.int64(2)), model_cache="models").model_cache == Path("models")


def test_a_script_that_mypy_looks_at_may_say_what_the_pages_say(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from virnucpro import Embedder, embed\n"
        "Embedder('m', layers=-1, pooling='max', model_cache='models')\n"
        "Embedder('m', layers=[3, -1], pooling=['mean'])\n"
        "embed(['MKT'], model='m', layers=(3, -1), pooling='max')\n"
        "Embedder('m', layer=3)\n"
    )
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = True\nfollow_imports = silent\n"
        "[mypy-torch.*,numpy.*,pandas.*,pyarrow.*,tqdm.*]\nfollow_imports = skip\n"
    )
    env = os.environ | {"MYPYPATH": str(Path(virnucpro.__file__).parents[1])}
    command = [sys.executable, "-m", "mypy", script.name]
    told = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True).stdout
    found = [line for line in told.splitlines() if "error" in line and line.startswith("script.py")]
    assert len(found) == 1 and 'script.py:5: error: Unexpected keyword argument "layer"' in found[0], told


def test_options_by_name_are_the_fields() -> None:
    assert set(EmbedderOptions.__annotations__) == {each.name for each in fields(Embedder) if each.init}
