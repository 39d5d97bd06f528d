"""``from virnucpro import embed``: what goes in, what comes out, what is refused. Bits: tests/e2e/test_doors.py."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import typing
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from e2e.launch import MODEL

from virnucpro import Embedder, embed, flat_map, nearest
from virnucpro.api import embedder as module
from virnucpro.api.embedder import EmbedderOptions
from virnucpro.errors import DataError, InputMissingError, TryAgainError, UsageError
from virnucpro.model import twin, weights
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.weights import Checkpoint, open_checkpoint
from virnucpro.pipeline.self_check import SelfCheck

RESIDUES = ["MKTAYIAKQRQISFVKSHFSRQ", "MVLSPADKTNVKAAW", "MGSSHHHHHHSSGLVPRGSH"]


def vectors(table: pa.Table, column: str = "embedding") -> np.ndarray:
    found = table[column].combine_chunks()
    return found.flatten().to_numpy().reshape(len(found), -1)


@pytest.fixture(scope="module")
def embedder() -> typing.Iterator[Embedder]:
    with Embedder(MODEL, device="cpu") as opened:
        yield opened


def test_a_list_a_mapping_and_a_file_are_the_same(embedder: Embedder, tmp_path: Path) -> None:
    fasta = tmp_path / "three.fasta.gz"
    fasta.write_bytes(gzip.compress("".join(f">{i} text\n{each}\n" for i, each in enumerate(RESIDUES)).encode()))
    named = {str(i): each for i, each in enumerate(RESIDUES)}
    keys = dict.fromkeys(RESIDUES).keys()
    tables = [embedder.embed(each) for each in (RESIDUES, iter(RESIDUES), keys, named, fasta, str(fasta))]
    assert tables[0]["id"].to_pylist() == ["0", "1", "2"]
    assert tables[0]["length"].to_pylist() == [22, 15, 20]
    assert vectors(tables[0]).shape == (3, 320)
    assert all(table.equals(tables[0], check_metadata=True) for table in tables)


def test_a_long_sequence_in_windows_keeps_all_its_residues() -> None:
    long = "".join(RESIDUES)
    options: EmbedderOptions = {"max_length": 21, "long_sequences": "window", "window_overlap": 3, "per_residue": True}
    table = embed([long, long[:21]], model=MODEL, device="cpu", **options)
    assert table["length"].to_pylist() == [57, 21] and table["truncated"].to_pylist() == [False, False]
    windows = [embed([long[start : start + 21]], model=MODEL, device="cpu", per_residue=True) for start in (0, 18, 36)]
    found, *parts = (np.stack(each["residues"][0].as_py()) for each in (table, *windows))
    expected = np.zeros((57, 320))
    for start, part in zip((0, 18, 36), parts, strict=True):
        expected[start : start + 21] += part
    expected /= np.bincount(np.r_[0:21, 18:39, 36:57])[:, None]
    np.testing.assert_allclose(found, expected, atol=3e-3)
    np.testing.assert_allclose(vectors(table)[0], expected.mean(axis=0), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "beyond"),
    [
        ({}, [False, False]),
        ({"long_sequences": "window"}, [False, False]),
        ({"long_sequences": "full", "max_length": 30}, [False, True]),
        ({"max_length": 1023}, [False, True]),
        ({"long_sequences": "window", "max_length": 1023}, [False, True]),
    ],
)
def test_what_the_model_saw_beyond_its_trained_length_is_told(options: EmbedderOptions, beyond: list[bool]) -> None:
    letters = ("".join(RESIDUES) * 20)[:1050]
    table = embed([letters[:1022], letters], model=MODEL, device="cpu", layers=[0], **options)
    assert table["beyond_trained_length"].to_pylist() == beyond


def test_identical_sequences_share_a_vector_and_keep_their_places(embedder: Embedder) -> None:
    table = embedder.embed(
        {"a": RESIDUES[1], "b": RESIDUES[0], "c": RESIDUES[1].lower() + "*", "d": "MV-LSPADKTNVKAAW"}
    )
    assert table["id"].to_pylist() == ["a", "b", "c", "d"]
    assert len(set(table["sequence_key"].to_pylist())) == 2
    found = vectors(table)
    assert (found[[2, 3]] == found[0]).all() and (found[1] != found[0]).any()
    alone = Embedder(MODEL, device="cpu", deduplicate=False).embed([RESIDUES[1]] * 3)
    np.testing.assert_allclose(vectors(alone), found[[0, 0, 0]], atol=1e-5)


def test_what_is_asked_for_comes(embedder: Embedder) -> None:
    options: EmbedderOptions = {"layers": [0, -1], "pooling": ["mean", "max"], "max_length": 16, "per_residue": True}
    table = embed(RESIDUES, model=MODEL, device="cpu", embedding_dtype="float16", **options)
    names = [f"embedding_{pooling}_layer{layer}" for pooling in ("mean", "max") for layer in (0, 6)]
    assert table.column_names[6:] == [*names, "residues_layer0", "residues_layer6"]
    assert table["truncated"].to_pylist() == [True, False, True]
    residues = [np.stack(each) for each in table["residues_layer6"].to_numpy()]
    assert [each.shape for each in residues] == [(16, 320), (15, 320), (16, 320)]
    means = np.stack([each.astype(np.float32).mean(axis=0) for each in residues])
    np.testing.assert_allclose(vectors(table, names[1]).astype(np.float32), means, atol=2e-3)
    cut = embedder.embed([each[:16] for each in RESIDUES])
    np.testing.assert_allclose(means, vectors(cut), atol=2e-3)


def test_rejected_records_are_told_of_and_leave_a_gap_in_the_ordinals(embedder: Embedder) -> None:
    sequences = {"good": RESIDUES[0], "digits": "MK7", "empty": "--", "last": RESIDUES[1]}
    with pytest.warns(UserWarning, match="2 of 4 records rejected: record 'digits': symbol '7' in the sequence; "):
        table = embedder.embed(sequences)
    assert table["ordinal"].to_pylist() == [0, 3]
    assert [(each.id, each.reason) for each in embedder.rejected] == [
        ("digits", "symbol '7' in the sequence"),
        ("empty", "no residue left"),
    ]
    embedder.embed(RESIDUES)
    assert embedder.rejected == []
    strict = Embedder(MODEL, device="cpu", strict=True)
    for call in (lambda: strict.embed(sequences), lambda: embedder.embed({"digits": "MK7"})):
        with pytest.raises(DataError, match="rejected: record 'digits'"):
            call()


def test_what_was_not_read_as_it_stands_is_kept(embedder: Embedder) -> None:
    embedder.embed({"gaps": "MK-V.L.", "plain": "mkvl*", "unknown": "MKJ*A", "both stops": "MKVL*."})
    found = [(each.ordinal, each.id, each.unknown_residues, each.gaps_removed) for each in embedder.changed]
    assert found == [(0, "gaps", 0, 2), (2, "unknown", 2, 0), (3, "both stops", 0, 1)]
    embedder.embed(RESIDUES)
    assert embedder.changed == []


@pytest.mark.parametrize(
    ("sequences", "error", "message"),
    [
        ([], DataError, "no sequence in the input"),
        (["ACGT" * 10], DataError, "nucleotide sequences .* alphabet='protein'"),
        (RESIDUES[0], InputMissingError, "no such file; .* into a list"),
        ("M" * 5000, InputMissingError, "no such file; .* into a list"),
        ("", InputMissingError, "no such file"),
        ([b"MKT"], UsageError, "str and bytes; give both as str"),
        ({1: "MKT"}, UsageError, "int and str; give both as str"),
        ({"a\udcff": "MKT"}, UsageError, "no text in UTF-8"),
        (pa.table({"id": ["a"], "sequence": ["MKT"]}), UsageError, "column of sequences"),
        (pd.DataFrame({"id": ["a"], "mktay": ["MKT"]}), UsageError, "column of sequences"),
        (io.StringIO(">a\nMKT\n"), UsageError, "the file's path"),
        ({*RESIDUES}, UsageError, "a set has no order"),
        (b"MKT", UsageError, "a list of sequences"),
        (None, UsageError, "a list of sequences"),
    ],
    ids=lambda each: each[:30] if isinstance(each, str) else type(each).__name__,
)
def test_what_is_no_protein_is_refused(
    embedder: Embedder, sequences: typing.Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        embedder.embed(sequences)


def test_what_looks_like_nucleotides_is_taken_if_it_is_said_to_be_protein(embedder: Embedder) -> None:
    assert Embedder(MODEL, device="cpu", alphabet="protein").embed(["ACGT" * 10]).num_rows == 1
    assert embedder.embed(["ACGT" * 4]).num_rows == 1


def test_the_model_stays_loaded_between_calls(tmp_path: Path) -> None:
    copied = shutil.copytree(MODEL, tmp_path / "model")
    with Embedder(copied, device="cpu") as opened:
        first = opened.embed(RESIDUES)
        shutil.rmtree(copied)
        second = opened.embed(RESIDUES)
        assert first.equals(second)
    with pytest.raises(InputMissingError):
        opened.embed(RESIDUES)


def test_weights_that_are_resident_serve_the_model_and_its_check_and_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where they are copied there: open_resident gives the path where there is none."""
    opened: list[weakref.ref[torch.Tensor]] = []

    def resident(path: Path, _: torch.device) -> Checkpoint:
        checkpoint = open_checkpoint(path)
        opened.append(weakref.ref(checkpoint.state["embed_tokens.weight"]))
        return checkpoint

    monkeypatch.setattr(module, "open_resident", resident)
    monkeypatch.setattr(weights, "open_checkpoint", not_called := lambda _: pytest.fail("the weights are read again"))
    monkeypatch.setattr(twin, "open_checkpoint", not_called)
    with Embedder(MODEL, device="cpu", progress=False) as embedder:
        assert embedder.embed(RESIDUES).num_rows == len(RESIDUES)
        (weight,) = opened
        assert weight() is None


def test_the_model_computes_by_the_path_that_its_check_went_back_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(load: Callable[[bool], PackedEsm2], *_: object) -> tuple[PackedEsm2, SelfCheck]:
        assert [load(plain).plain for plain in (False, True, False)] == [False, True, False]
        return load(False), SelfCheck("missed", 0.5, 0.9)

    monkeypatch.setattr(module, "self_checked", check)
    with Embedder(MODEL, device="cpu", progress=False) as embedder:
        embedder.embed(RESIDUES)
        assert not embedder._loaded.model.plain


def test_a_model_whose_check_failed_is_loaded_and_checked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(load: Callable[[bool], PackedEsm2], *_: object) -> tuple[PackedEsm2, SelfCheck]:
        load(True)
        raise TryAgainError("beyond rounding")

    with Embedder(MODEL, device="cpu", progress=False) as embedder:
        with monkeypatch.context() as patched:
            patched.setattr(module, "self_checked", fail)
            with pytest.raises(TryAgainError):
                embedder.embed(RESIDUES)
        table = embedder.embed(RESIDUES)
        assert not embedder._loaded.model.plain
    assert json.loads(table.schema.metadata[b"virnucpro"])["least_pooled_cosine"] > 0.999


def test_residues_that_do_not_fit_are_an_error_as_in_the_pipeline(tmp_path: Path) -> None:
    large = shutil.copytree(MODEL, tmp_path / "large")
    state = torch.load(large / "pytorch_model.bin", weights_only=True)
    name = next(name for name in state if name.endswith("emb_layer_norm_after.weight"))
    state[name] *= 1e6
    torch.save(state, large / "pytorch_model.bin")
    assert np.isfinite(vectors(Embedder(large, device="cpu", progress=False).embed(RESIDUES))).all()
    with pytest.raises(DataError, match="residues do not fit float16; leave per_residue out"):
        Embedder(large, device="cpu", progress=False, per_residue=True).embed(RESIDUES)


def test_a_table_without_rows_has_no_neighbours_and_no_points(embedder: Embedder) -> None:
    table = embedder.embed(RESIDUES)
    nothing = table.slice(0, 0)
    expected = nearest(table, 1).slice(0, 0)
    for found in (nearest(nothing), nearest(nothing, reference=table), nearest(table, reference=nothing)):
        assert found.equals(expected)
    assert flat_map(nothing).equals(flat_map(table).slice(0, 0))


def test_a_bar_is_shown_unless_refused(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_BAR_AFTER", 0.0)
    embedder.embed(RESIDUES)
    assert "/63.0 [" in capsys.readouterr().err
    Embedder(MODEL, device="cpu", progress=False).embed(RESIDUES)
    assert capsys.readouterr().err == ""
