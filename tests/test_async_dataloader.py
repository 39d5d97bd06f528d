"""The async DataLoader from FASTA to embeddings, as a caller of its interface sees it.

Everything runs on a CPU; where there is a GPU the runner uses it. The model is a small fair-esm ESM2 with random
weights, whose queries and keys are scaled up so that attention is sharp enough for a fault in it to show.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import esm
import pytest
import torch
from torch.utils.data import DataLoader
from worker_datasets import Items, LoggingCollator, open_cuda, show_a_gpu

from virnucpro.data import SequenceDataset, VarlenCollator, create_async_dataloader
from virnucpro.data.cuda_isolation import CudaHiddenSpawnContext
from virnucpro.data.dataloader_utils import AsyncDataLoader, cuda_safe_worker_init
from virnucpro.pipeline import AsyncInferenceRunner

PROTEIN = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQFEVVHSLAKWKRQQIA"
MAX_TOKENS = 500
DIM = 32
ALPHABET = esm.data.Alphabet.from_architecture("ESM-1b")


@pytest.fixture(scope="module")
def test_fasta_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of ten sequences each, of 50 to 77 residues, all different."""
    folder = tmp_path_factory.mktemp("fasta")
    files = []
    for i in range(2):
        files.append(folder / f"input_{i}.fasta")
        with files[-1].open("w") as file:
            for j in range(10):
                start = 10 * i + j
                file.write(f">seq_{i}_{j} a description\n{(2 * PROTEIN)[start : start + 50 + 3 * j]}\n")
    return files


@pytest.fixture(scope="module")
def esm_model_and_converter() -> tuple[Any, Any, torch.device]:
    torch.manual_seed(0)
    model = esm.ESM2(num_layers=2, embed_dim=DIM, attention_heads=4, alphabet=ALPHABET).eval()
    with torch.no_grad():
        for layer in model.layers:
            layer.self_attn.q_proj.weight *= 3
            layer.self_attn.k_proj.weight *= 3
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    return model.to(device), ALPHABET.get_batch_converter(), device


@pytest.fixture(scope="module")
def loader(test_fasta_files, esm_model_and_converter) -> Iterator[AsyncDataLoader]:
    """One loader for all tests that iterate: its workers persist, so it is also iterated many times."""
    _, batch_converter, _ = esm_model_and_converter
    yield create_async_dataloader(
        SequenceDataset(test_fasta_files),
        VarlenCollator(batch_converter, max_tokens=MAX_TOKENS),
        batch_size=5,
        num_workers=2,
        prefetch_factor=2,
        timeout=120,
    )


@pytest.fixture(scope="module")
def reference(test_fasta_files, esm_model_and_converter) -> dict[str, torch.Tensor]:
    """fair-esm's own fp32 mean over the residues, one sequence at a time, by id."""
    model, batch_converter, device = esm_model_and_converter
    means = {}
    for item in SequenceDataset(test_fasta_files):
        _, _, tokens = batch_converter([(item["id"], item["sequence"])])
        with torch.no_grad():
            states = model(tokens.to(device), repr_layers=[2])["representations"][2][0]
        means[item["id"]] = states[1:-1].float().mean(0).cpu()
    return means


def assert_close_to_reference(results: list[Any], reference: dict[str, torch.Tensor], device: torch.device) -> None:
    ids = [name for result in results for name in result.sequence_ids]
    assert ids == list(reference)
    got = torch.cat([result.embeddings for result in results])
    expected = torch.stack(list(reference.values()))
    assert got.dtype == torch.float32 and got.device.type == "cpu"
    if device.type == "cpu":
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    else:
        assert torch.nn.functional.cosine_similarity(got, expected).min() > 0.999
        assert ((got - expected).norm() / expected.norm()) < 0.01


class TestSequenceDataset:
    """Sequences from FASTA files."""

    def test_dataset_yields_sequences(self, test_fasta_files) -> None:
        items = list(SequenceDataset(test_fasta_files))
        assert [item["id"] for item in items] == [f"seq_{i}_{j}" for i in range(2) for j in range(10)]
        assert {item["file"] for item in items} == {str(file) for file in test_fasta_files}
        assert [len(item["sequence"]) for item in items] == [50 + 3 * j for j in range(10)] * 2

    def test_dataset_respects_max_length(self, test_fasta_files) -> None:
        items = list(SequenceDataset(test_fasta_files, max_length=30))
        whole = list(SequenceDataset(test_fasta_files))
        assert [item["sequence"] for item in items] == [item["sequence"][:30] for item in whole]


class TestVarlenCollator:
    """The packed format."""

    def test_collator_produces_packed_format(self, esm_model_and_converter) -> None:
        _, batch_converter, _ = esm_model_and_converter
        result = VarlenCollator(batch_converter, max_tokens=MAX_TOKENS)(
            [
                {"id": "seq1", "sequence": "MKTAYIAK", "file": "test.fasta"},
                {"id": "seq2", "sequence": "VLSPADKTNV", "file": "test.fasta"},
            ]
        )
        assert result["input_ids"].dtype == torch.long and result["input_ids"].shape == (22,)
        assert result["cu_seqlens"].dtype == torch.int32 and result["cu_seqlens"].tolist() == [0, 10, 22]
        assert result["max_seqlen"] == 12
        assert result["sequence_ids"] == ["seq1", "seq2"] and result["num_sequences"] == 2
        assert len(result["cu_seqlens"]) == result["num_sequences"] + 1


class TestAsyncDataLoader:
    """Prefetching in processes without CUDA."""

    def test_dataloader_prefetches_batches(self, loader) -> None:
        batches = list(loader)
        assert [batch["num_sequences"] for batch in batches] == [5, 5, 5, 5]
        assert all(len(batch["input_ids"]) == batch["cu_seqlens"][-1] <= MAX_TOKENS for batch in batches)

    def test_every_sequence_comes_once_and_in_order_each_time(self, loader, test_fasta_files) -> None:
        expected = [item["id"] for item in SequenceDataset(test_fasta_files)]
        for _ in range(3):
            assert [name for batch in loader for name in batch["sequence_ids"]] == expected

    def test_batches_are_ready_before_they_are_asked_for(self, tmp_path) -> None:
        log = tmp_path / "made.log"
        items = [{"id": f"s{index}", "sequence": "M" * 60} for index in range(12)]
        loader = create_async_dataloader(
            Items(items), LoggingCollator(log), num_workers=1, prefetch_factor=3, timeout=120
        )
        batches = iter(loader)
        assert next(batches) == ["s0"]
        deadline = time.monotonic() + 60
        while len(log.read_text().split()) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert log.read_text().split() == ["s0", "s1", "s2", "s3"]
        assert list(batches) == [[f"s{index}"] for index in range(1, 12)]

    def test_everything_handed_to_workers_pickles(self, loader) -> None:
        for value in (loader.collate_fn, loader.worker_init_fn):
            assert pickle.loads(pickle.dumps(value)) is value
        text = pickle.dumps(loader.dataset)
        assert b"esm" not in text and len(text) < 4096
        again = [batch["input_ids"] for batch in pickle.loads(text)]
        assert all(map(torch.equal, again, [batch["input_ids"] for batch in loader]))

    def test_dataloader_uses_spawn_context(self, test_fasta_files, esm_model_and_converter) -> None:
        _, batch_converter, _ = esm_model_and_converter
        loader = create_async_dataloader(
            SequenceDataset(test_fasta_files), VarlenCollator(batch_converter), num_workers=2
        )
        assert loader.multiprocessing_context == "spawn"
        assert loader.multiprocessing_context.get_start_method() == "spawn"

    def test_at_least_one_worker_is_needed(self, test_fasta_files) -> None:
        with pytest.raises(ValueError, match="num_workers is 0"):
            create_async_dataloader(SequenceDataset(test_fasta_files), VarlenCollator(), num_workers=0)


class TestConservation:
    """Each id comes out once, in order, in batches that keep to the budget, for any number of workers."""

    BUDGET = 100  # five sequences of 18 residues

    @pytest.fixture(scope="class", params=[1, 2, 3, 4, 5])
    def rewritable(self, request, tmp_path_factory) -> tuple[AsyncDataLoader, Path]:
        path = tmp_path_factory.mktemp("conservation") / "input.fasta"
        path.touch()
        collator = VarlenCollator(max_tokens=self.BUDGET)
        return create_async_dataloader(SequenceDataset([path]), collator, num_workers=request.param, timeout=120), path

    @pytest.mark.filterwarnings("ignore:This DataLoader will create")
    @pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 6, 7, 24, 25, 26, 97])
    @pytest.mark.parametrize("kind", ["equal", "varied", "over-budget"])
    def test_ids_in_are_ids_out(self, rewritable, count: int, kind: str) -> None:
        loader, path = rewritable
        lengths = {"equal": [18], "varied": [1, 38, 7, 60, 18], "over-budget": [150, 10, 98, 99]}[kind]
        path.write_text("".join(f">s{i}\n{'M' * lengths[i % len(lengths)]}\n" for i in range(count)))
        batches = list(loader)
        assert [name for batch in batches for name in batch["sequence_ids"]] == [f"s{i}" for i in range(count)]
        assert sum(len(batch["input_ids"]) for batch in batches) == sum(
            lengths[i % len(lengths)] + 2 for i in range(count)
        )
        assert all(len(batch["input_ids"]) <= self.BUDGET or batch["num_sequences"] == 1 for batch in batches)
        if kind == "equal":
            assert len(batches) == -(-count // 5)


class TestAsyncInference:
    """From FASTA to embeddings."""

    def test_inference_produces_embeddings(self, loader, esm_model_and_converter) -> None:
        model, _, device = esm_model_and_converter
        results = list(AsyncInferenceRunner(model=model, device=device, enable_streams=True).run(loader))
        assert [result.batch_idx for result in results] == [0, 1, 2, 3]
        for result in results:
            assert result.embeddings.shape == (len(result.sequence_ids), DIM)
            assert torch.isfinite(result.embeddings).all()

    @pytest.mark.parametrize("enable_streams", [True, False])
    def test_every_batch_equals_the_reference(
        self, loader, esm_model_and_converter, reference, enable_streams: bool
    ) -> None:
        model, _, device = esm_model_and_converter
        runner = AsyncInferenceRunner(model, device, enable_streams=enable_streams)
        assert_close_to_reference(list(runner.run(loader)), reference, device)

    def test_one_batch_alone_equals_the_same_batch_in_a_run(self, loader, esm_model_and_converter) -> None:
        model, _, device = esm_model_and_converter
        batches = list(loader)
        in_a_run = list(AsyncInferenceRunner(model, device).run(batches))
        alone = AsyncInferenceRunner(model, device).process_batch(batches[2])
        assert alone.sequence_ids == in_a_run[2].sequence_ids
        torch.testing.assert_close(alone.embeddings, in_a_run[2].embeddings)

    def test_a_batch_of_another_shape_is_refused(self, esm_model_and_converter) -> None:
        model, _, device = esm_model_and_converter
        with pytest.raises(ValueError, match="sequence_ids"):
            AsyncInferenceRunner(model, device).process_batch({"input_ids": torch.zeros(3, dtype=torch.long)})

    def test_progress_is_called_for_each_batch(self, loader, esm_model_and_converter) -> None:
        model, _, device = esm_model_and_converter
        seen: list[tuple[int, int]] = []
        list(AsyncInferenceRunner(model, device).run(loader, lambda index, count: seen.append((index, count))))
        assert seen == [(0, 5), (1, 5), (2, 5), (3, 5)]

    def test_inference_statistics_available(self, loader, esm_model_and_converter) -> None:
        model, _, device = esm_model_and_converter
        runner = AsyncInferenceRunner(model=model, device=device, monitor_interval=0.01)
        list(runner.run(loader))
        statistics = runner.get_statistics()
        assert statistics["total_batches"] == 4 and statistics["total_sequences"] == 20
        assert {"throughput", "gpu_stats", "dataloader_stats"} <= set(statistics)
        assert all(value > 0 for value in statistics["throughput"].values())

    @pytest.mark.gpu
    def test_the_gpu_is_watched_during_inference(self, loader, esm_model_and_converter) -> None:
        model, _, device = esm_model_and_converter
        runner = AsyncInferenceRunner(model=model, device=device, monitor_interval=0.01)
        list(runner.run(loader))
        assert runner.get_statistics()["gpu_stats"]["sample_count"] > 0


class TestCUDASafety:
    """The isolation of the workers."""

    def test_worker_init_hides_cuda(self, monkeypatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
        cuda_safe_worker_init(0)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false"

    @pytest.mark.parametrize(
        ("init", "message"), [(show_a_gpu, "CUDA is visible in a data worker"), (open_cuda, "CUDA is initialised")]
    )
    def test_a_worker_that_sees_cuda_fails(self, test_fasta_files, init, message: str) -> None:
        loader = DataLoader(
            SequenceDataset(test_fasta_files),
            num_workers=1,
            worker_init_fn=init,
            multiprocessing_context=CudaHiddenSpawnContext(),
            timeout=120,
        )
        with pytest.raises(RuntimeError, match=message):
            list(loader)

    @pytest.mark.gpu
    def test_workers_start_beside_an_open_gpu(self, test_fasta_files) -> None:
        torch.zeros(1, device="cuda")
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        loader = create_async_dataloader(SequenceDataset(test_fasta_files), VarlenCollator(), num_workers=1)
        assert sum(batch["num_sequences"] for batch in loader) == 20
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == before
        assert torch.ones(2, device="cuda").sum().item() == 2
