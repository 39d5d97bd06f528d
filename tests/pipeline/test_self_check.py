"""A task measures its own parity: what it finds, what it does where kernels are wrong, and what it may cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from model.esm2_reference import random_sequence, reference_states, save_fair_esm, sharp_esm2

from virnucpro.api.embedder import Embedder
from virnucpro.errors import ExitCode, TryAgainError
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.registry import MODELS
from virnucpro.model.weights import load_model
from virnucpro.parity_bounds import PARITY_BOUNDS
from virnucpro.pipeline.output_plan import OutputPlan
from virnucpro.pipeline.self_check import (
    FEWEST_TOKENS,
    MOST_TOKENS,
    TWIN_OPERATIONS,
    cut_to,
    sample_of,
    sample_of_shard,
    self_checked,
)

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = (90, 71, 60, 44, 31, 23, 12, 5, 1)
ATTENTION = "virnucpro.kernels.attention:varlen_attention"


def sequences() -> list[str]:
    import random

    rng = random.Random(5)
    return [random_sequence(length, rng) for length in LENGTHS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its description, and a shard of nine sequences."""
    made = tmp_path_factory.mktemp("checked")
    save_fair_esm(sharp_esm2(), made / "small.pt")
    program = [sys.executable, ROOT / "bin" / "fetch_model.py", "--model", made / "small.pt", "--outdir", made]
    subprocess.run(program, check=True, capture_output=True)
    (made / "shard-00000.fasta").write_text("".join(f">{i}\n{each}\n" for i, each in enumerate(sequences())))
    return made


def embed(
    folder: Path, outdir: Path, *options: str, wrong: dict[str, Any] | None = None, interpreted: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run EMBED_SHARD's program, an operation of it made wrong where that is asked for."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests" / "faults")}
    environment |= {"TRITON_INTERPRET": "1"} if interpreted else {}
    environment |= {"VIRNUCPRO_WRONG": json.dumps(wrong)} if wrong else {}
    paths = {"--shard": "shard-00000.fasta", "--model": "small.pt", "--model-json": "model.json"}
    given = [word for name, path in paths.items() for word in (name, folder / path)]
    command = [sys.executable, ROOT / "bin" / "embed_shard.py", *given, "--outdir", outdir, "--device", "cpu"]
    return subprocess.run(
        [*map(str, command), "--threads", "1", *options], env=environment, capture_output=True, text=True, timeout=300
    )


def summary(outdir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((outdir / "summary.json").read_text())
    return content


def vectors(outdir: Path) -> np.ndarray:
    column = pq.read_table(outdir / "embeddings.parquet")["embedding"].combine_chunks()
    return np.asarray(column.flatten()).reshape(len(column), -1)


def means() -> np.ndarray:
    """fair-esm's vectors of the shard."""
    model = sharp_esm2()
    return np.stack([reference_states(model, each, [2])[2][1:-1].mean(0).numpy() for each in sequences()])


def figures(model: PackedEsm2, texts: Sequence[str]) -> tuple[float, float]:
    """The two figures of a model over some sequences, each alone, against fair-esm in fp32."""
    from model.esm2_reference import packed_states

    reference, worst, least = sharp_esm2(), 0.0, 1.0
    for text, states in zip(texts, packed_states(model, texts, [2]), strict=True):
        ours, theirs = states[2][1:-1], reference_states(reference, text, [2])[2][1:-1]
        worst = max(worst, float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max()))
        cosine = torch.nn.functional.cosine_similarity(ours.double().mean(0), theirs.double().mean(0), dim=0)
        least = min(least, float(cosine))
    return worst, least


def test_a_right_task_meets_its_bounds_and_says_so_everywhere(folder: Path, tmp_path: Path) -> None:
    done = embed(folder, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = summary(tmp_path / "out")
    assert found["self_check"] == "met"
    assert 0 < found["greatest_residue_l2"] <= PARITY_BOUNDS["fp32"].residue_l2
    assert found["least_pooled_cosine"] >= PARITY_BOUNDS["fp32"].pooled_cosine
    metadata = json.loads(pq.read_schema(tmp_path / "out" / "embeddings.parquet").metadata[b"virnucpro"])
    for told in (metadata, found["metadata"]):
        assert told["greatest_residue_l2"] == found["greatest_residue_l2"]
        assert told["least_pooled_cosine"] == found["least_pooled_cosine"]
    line = f"Self-check against fp32: greatest residue L2 {found['greatest_residue_l2']:.1e}, least pooled cosine 0.99"
    assert line in done.stderr
    assert "within the published bounds." in done.stderr


def test_it_is_turned_off(folder: Path, tmp_path: Path) -> None:
    wrong = {"target": ATTENTION, "factor": 1.01, "where": "everywhere"}
    done = embed(folder, tmp_path / "out", "--no-self-check", wrong=wrong)
    assert done.returncode == 0, done.stderr
    found = summary(tmp_path / "out")
    assert [found[name] for name in ("self_check", "greatest_residue_l2", "least_pooled_cosine")] == ["off", None, None]
    assert [found["metadata"][name] for name in ("greatest_residue_l2", "least_pooled_cosine")] == [None, None]
    assert "self-check" not in done.stderr.lower()


@pytest.mark.faults("a kernel that computes wrongly", "a shard", "one line; the vectors of PyTorch's operations")
@pytest.mark.parametrize(
    "target",
    [
        ATTENTION,
        "virnucpro.kernels.layer_norm:add_layer_norm",
        "virnucpro.kernels.linear_gelu:linear_gelu",
        "virnucpro.kernels.pooling:pool",
    ],
)
def test_a_wrong_kernel_gives_way_to_the_plain_path(folder: Path, tmp_path: Path, target: str) -> None:
    pytest.importorskip("triton")
    wrong = {"target": target, "factor": 1.01, "where": "kernel"}
    done = embed(folder, tmp_path / "out", wrong=wrong, interpreted=True)
    assert done.returncode == 0, done.stderr
    found = summary(tmp_path / "out")
    assert found["self_check"] == "plain"
    assert found["metadata"]["attention"] == "sdpa"
    assert found["greatest_residue_l2"] <= PARITY_BOUNDS["fp32"].residue_l2
    np.testing.assert_allclose(vectors(tmp_path / "out"), means(), rtol=1e-4, atol=2e-5)
    told = [line for line in done.stderr.splitlines() if line.startswith("self-check on ")]
    assert len(told) == 1
    assert told[0].endswith("this task goes on without kernels of its own, by PyTorch's operations alone")
    assert "by PyTorch's operations alone, as kernels were beyond the bounds, in 1 of 1." in done.stderr


def test_right_kernels_stay(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    done = embed(folder, tmp_path / "out", interpreted=True)
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path / "out")["self_check"] == "met"
    assert summary(tmp_path / "out")["metadata"]["attention"] == "triton"


@pytest.mark.faults("an operation that computes wrongly, with our kernels and without", "a shard", "75; no output")
@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_where_the_plain_path_is_wrong_too_nothing_is_written(folder: Path, tmp_path: Path, factor: float) -> None:
    done = embed(folder, tmp_path / "out", wrong={"target": ATTENTION, "factor": factor, "where": "everywhere"})
    assert done.returncode == ExitCode.TRY_AGAIN, done.stderr
    assert not list(tmp_path.iterdir())
    last = done.stderr.splitlines()[-1]
    assert last.startswith("embed_shard.py: error: self-check on ")
    assert "nothing was written" in last and "--self_check false" in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_figures_are_those_against_fair_esm(folder: Path, precision: str) -> None:
    model = load_model(folder / "small.pt", precision, "cpu")
    texts = sample_of(sequences())
    _, found = self_checked(lambda _: model, folder / "small.pt", OutputPlan((2,), ("mean",)), texts, 4096, "this CPU")
    assert found.outcome == "met"
    assert found.greatest_residue_l2 is not None and found.least_pooled_cosine is not None
    worst, least = figures(model, texts)
    # A sequence's last bits differ by the batch that it stands in.
    near = {"fp32": 2e-6, "fp16": 1e-3, "bf16": 1e-2}[precision]
    assert found.greatest_residue_l2 == pytest.approx(worst, abs=near)
    assert 1 - found.least_pooled_cosine == pytest.approx(1 - least, abs=near)


def test_a_small_error_is_told_at_its_size(folder: Path) -> None:
    """Residues that are all 1e-3 too long: L2 1e-3, within what fp16 may have and beyond fp32's bound."""
    model = load_model(folder / "small.pt", "fp32", "cpu")
    norm = model._final_norm
    model._final_norm = replace(norm, weight=norm.weight * 1.001, bias=norm.bias * 1.001)
    plan, texts = OutputPlan((2,), ("mean",)), sample_of(sequences())
    with pytest.raises(TryAgainError, match=r"the greatest residue L2 to fp32 is 1\.0e-03"):
        self_checked(lambda _: model, folder / "small.pt", plan, texts, 4096, "this CPU")


def test_a_model_in_16_bits_that_overflows_is_not_measured(folder: Path, tmp_path: Path) -> None:
    reference = sharp_esm2()
    reference.layers[1].fc2.weight.mul_(1e8)
    path = save_fair_esm(reference, tmp_path / "large.pt")
    model = load_model(path, "fp16", "cpu")
    plan = OutputPlan((2,), ("mean",))
    _, found = self_checked(lambda _: model, path, plan, sample_of(sequences()), 4096, "this CPU")
    assert (found.outcome, found.greatest_residue_l2) == ("unmeasured", None)


def test_the_sample_is_told_by_the_shard_alone(folder: Path, tmp_path: Path) -> None:
    texts = sequences()
    assert sample_of_shard(folder / "shard-00000.fasta") == [texts[0], texts[2], texts[-1]]
    assert sample_of(texts) == [texts[0], texts[2], texts[-1]]
    for count in (1, 2):
        shard = tmp_path / "shard-00001.fasta"
        shard.write_text("".join(f">{i}\n{each}\n" for i, each in enumerate(texts[:count])))
        assert sample_of_shard(shard) == sample_of(texts[:count]) == texts[:count]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("device", TWIN_OPERATIONS)
def test_the_twin_computes_no_more_than_it_may(name: str, device: str) -> None:
    config = MODELS[name]
    for lengths in ((60_000, 300, 40), (1022, 1022, 1022), (1, 1, 1), (500,)):
        kept = cut_to(["A" * length for length in lengths], config, device)
        tokens = sum(len(each) + 2 for each in kept)
        least = len(lengths) * FEWEST_TOKENS
        assert tokens <= MOST_TOKENS
        assert tokens <= least or 24 * config.layers * config.embed_dim**2 * tokens <= TWIN_OPERATIONS[device]
        assert [len(each) for each in kept] == sorted(len(each) for each in kept)
        assert all(each for each in kept)


def test_vectors_of_a_loaded_model_say_what_was_found(folder: Path) -> None:
    with Embedder(folder / "small.pt", device="cpu", progress=False) as embedder:
        tables = [embedder.embed(sequences()), embedder.embed(sequences()[:2])]
    told = [json.loads(table.schema.metadata[b"virnucpro"]) for table in tables]
    assert 0 < told[0]["greatest_residue_l2"] <= PARITY_BOUNDS["fp32"].residue_l2
    assert told[1]["greatest_residue_l2"] == told[0]["greatest_residue_l2"]
    with Embedder(folder / "small.pt", device="cpu", progress=False, self_check=False) as embedder:
        metadata = json.loads(embedder.embed(sequences()).schema.metadata[b"virnucpro"])
    assert metadata["greatest_residue_l2"] is None and metadata["least_pooled_cosine"] is None


def test_a_loaded_model_gives_way_too(folder: Path) -> None:
    pytest.importorskip("triton")
    code = (
        "import json, sys\nfrom virnucpro.api.embedder import Embedder\n"
        "embedder = Embedder(sys.argv[1], device='cpu', progress=False)\n"
        "table = embedder.embed(json.loads(sys.argv[2]))\n"
        "print(json.dumps([json.loads(table.schema.metadata[b'virnucpro']), table['embedding'].to_pylist()]))"
    )
    wrong = {"target": ATTENTION, "factor": 1.01, "where": "kernel"}
    paths = os.pathsep.join((str(ROOT / "tests" / "faults"), str(ROOT / "bin")))
    environment = {"PYTHONPATH": paths, "TRITON_INTERPRET": "1", "VIRNUCPRO_WRONG": json.dumps(wrong)}
    command = [sys.executable, "-c", code, str(folder / "small.pt"), json.dumps(sequences())]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    metadata, found = json.loads(done.stdout)
    assert metadata["attention"] == "sdpa"
    assert metadata["greatest_residue_l2"] <= PARITY_BOUNDS["fp32"].residue_l2
    np.testing.assert_allclose(np.array(found), means(), rtol=1e-4, atol=2e-5)
    assert done.stderr.count("this task goes on without kernels of its own") == 1


@pytest.mark.parametrize(("kernels", "loads"), [(True, [False, True, False]), (False, [False])])
def test_rounding_that_pytorch_has_too_is_told_and_lets_the_kernels_be(
    kernels: bool, loads: list[bool], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model in bf16, held to the bounds of fp16 by its name: kernels and PyTorch's operations are alike."""
    monkeypatch.setattr(PackedEsm2, "has_kernels", kernels)
    asked: list[bool] = []

    def load(plain: bool) -> PackedEsm2:
        asked.append(plain)
        model = load_model(folder / "small.pt", "bf16", "cpu")
        model.precision = "fp16"
        return model

    model = load_model(folder / "small.pt", "bf16", "cpu")
    worst, _ = figures(model, sample_of(sequences()))
    assert PARITY_BOUNDS["fp16"].residue_l2 < worst < 5e-2
    plan, texts = OutputPlan((2,), ("mean",)), sample_of(sequences())
    _, found = self_checked(load, folder / "small.pt", plan, texts, 4096, "this CPU")
    assert (found.outcome, asked) == ("missed", loads)
    assert "it is this model's rounding; --precision fp32 rounds less" in capsys.readouterr().err
