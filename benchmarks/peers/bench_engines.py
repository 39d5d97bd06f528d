"""Throughput of ESM-2 inference engines on one GPU: fair-esm, Hugging Face and ours on the same real lengths.

Weights are random (throughput does not depend on them); each engine runs in turn in this one process, between two
measurements of a plain matrix product. Prints a table and writes ``benchmarks/results/engines-<size>.csv``.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from benchmarks.environment import RESULTS, conditions, quantiles, write_csv
from benchmarks.inputs import SHAPES, budget_of, flops, packed_batches, padded_groups, random_esm2, read_sequences

from virnucpro.data.tokens import tokenise
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.pipeline.engine import Engine
from virnucpro.pipeline.output_plan import OutputPlan

#: fair-esm's extract.py pads batches to this many tokens unless told otherwise.
FAIR_ESM_BUDGET = 4096
HUGGING_FACE_BUDGET = 32_768
DEVICE = torch.device("cuda")


def matmul_rate(repeats: int = 20) -> float:
    """TFLOP/s of an 8192 x 8192 x 8192 bf16 product on random data."""
    a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        a @ b
    end.record()
    end.synchronize()
    return repeats * 2 * 8192**3 / start.elapsed_time(end) / 1e9


def timed(run: Callable[[], object], repeats: int, warm_up_s: float = 0.0) -> list[float]:
    """Wall seconds of ``run``, device work included, after one run or as many as take ``warm_up_s``."""
    begun = time.perf_counter()
    run()
    while time.perf_counter() - begun < warm_up_s:
        run()
    seconds = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        run()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return seconds


def pad(tokens: Sequence[torch.Tensor], group: Sequence[int]) -> torch.Tensor:
    """Pad the named sequences to their longest with ESM-2's padding token."""
    return torch.nn.utils.rnn.pad_sequence([tokens[i] for i in group], batch_first=True, padding_value=1)


@torch.no_grad()
def run_fair_esm(model: Any, tokens: Sequence[torch.Tensor], autocast: bool) -> None:
    """What fair-esm's extract.py does per batch: ascending lengths, logits and representations to the host, mean."""
    lengths = [len(t) for t in tokens]
    order = sorted(range(len(tokens)), key=lengths.__getitem__)
    depth = model.num_layers
    for group in padded_groups(lengths, order, FAIR_ESM_BUDGET):
        with torch.autocast("cuda", dtype=torch.float16, enabled=autocast):
            out = model(pad(tokens, group).to(DEVICE), repr_layers=[depth])
        out["logits"].cpu()
        representations = out["representations"][depth].cpu()
        for row, index in enumerate(group):
            representations[row, 1 : lengths[index] - 1].mean(0).clone()


@torch.no_grad()
def run_hugging_face(model: Any, tokens: Sequence[torch.Tensor]) -> None:
    """EsmModel with SDPA over length-sorted padded batches and a masked mean on the GPU."""
    lengths = [len(t) for t in tokens]
    order = sorted(range(len(tokens)), key=lengths.__getitem__)
    for group in padded_groups(lengths, order, HUGGING_FACE_BUDGET):
        ids = pad(tokens, group).to(DEVICE)
        mask = (ids != 1).long()
        hidden = model(ids, attention_mask=mask).last_hidden_state
        residue = mask.clone()
        residue[:, 0] = 0
        residue[torch.arange(len(group), device=DEVICE), mask.sum(1) - 1] = 0
        ((hidden * residue[..., None]).sum(1) / residue.sum(1, keepdim=True)).float().cpu()


def hugging_face_model(size: str) -> Any:
    """A randomly initialised Hugging Face ESM-2 in bf16 with SDPA."""
    from transformers import EsmConfig, EsmModel

    layers, dim, heads = SHAPES[size]
    config = EsmConfig(
        vocab_size=33,
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * dim,
        max_position_embeddings=1026,
        position_embedding_type="rotary",
        token_dropout=True,
        pad_token_id=1,
        mask_token_id=32,
        emb_layer_norm_before=False,
        attn_implementation="sdpa",  # type: ignore[call-arg]  # its base class takes it
    )
    with torch.device(DEVICE):
        return torch.nn.Module.to(EsmModel(config, add_pooling_layer=False), DEVICE, torch.bfloat16).eval()


def run_ours(engine: Engine, batches: Sequence[Any]) -> None:
    """All batches through the engine, two ahead of the one awaited, as the pipeline's runner does."""
    flights = []
    for batch in batches:
        flights.append(engine.submit(batch))
        if len(flights) > 2:
            engine.collect(flights.pop(0))
    for flight in flights:
        engine.collect(flight)


def sampling(engine: str, size: str) -> int:
    """Every how many sequences an engine is given, so that the slow ones take seconds, not minutes."""
    if engine.startswith("ours") and engine != "ours-fp32":
        return 1
    return (4 if engine.startswith("hugging-face") else 12) * (4 if size == "3B" else 1)


def measure(
    size: str, sequences: list[str], engines: Sequence[str], budget: int, repeats: int
) -> Iterator[dict[str, Any]]:
    """One row per engine; those that are slow run on an even sample of the sequences."""
    layers, dim, _ = SHAPES[size]
    reference = random_esm2(size, DEVICE)
    for engine in engines:
        sample = sequences[:: sampling(engine, size)]
        tokens = [torch.from_numpy(tokenise(s)) for s in sample]
        torch.cuda.reset_peak_memory_stats()
        if engine.startswith("fair-esm"):
            seconds = timed(lambda: run_fair_esm(reference, tokens, "fp16" in engine), 1)  # noqa: B023
        elif engine.startswith("hugging-face"):
            peer = hugging_face_model(size)
            seconds = timed(lambda: run_hugging_face(peer, tokens), repeats)  # noqa: B023
            del peer
        else:
            model = PackedEsm2.from_fair_esm(reference, engine.removeprefix("ours-"), DEVICE)
            packed = Engine(model, DEVICE, OutputPlan.of(layers))
            batches = packed_batches(sample, budget, pinned=True)
            seconds = timed(lambda: run_ours(packed, batches), repeats)  # noqa: B023
            del model, packed, batches
        lengths = [len(t) for t in tokens]
        best = median(seconds)
        yield {
            "model": size,
            "engine": engine,
            "sequences": len(sample),
            "tokens": sum(lengths),
            "tokens_per_second": sum(lengths) / best,
            "tflops": flops(lengths, layers, dim) / best / 1e12,
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
            **quantiles(seconds),
        }
        gc.collect()
        torch.cuda.empty_cache()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--size", choices=SHAPES, default="650M")
    parser.add_argument(
        "--engines", default="fair-esm-fp32,fair-esm-fp16,hugging-face-bf16,ours-fp32,ours-fp16,ours-bf16,ours-fp8"
    )
    parser.add_argument("--budget", type=int, help="tokens per batch, otherwise as the pipeline takes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, help="use an even sample of this many sequences")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    sequences = read_sequences(options.fasta)
    if options.limit:
        sequences = sequences[:: max(1, len(sequences) // options.limit)]
    budget = budget_of(options.size, "fp16", "cuda", options.budget)
    extra = {"data": options.fasta.name, "budget": budget, **conditions()}
    before = matmul_rate()
    rows: list[dict[str, Any]] = []
    for row in measure(options.size, sequences, options.engines.split(","), budget, options.repeats):
        print(f"{row['engine']:22s} {row['tokens_per_second']:12,.0f} tok/s {row['tflops']:7.1f} TFLOP/s", flush=True)
        rows.append(row)
        after = matmul_rate()
        rate = (before + after) / 2
        # Anew after each engine, so that a run which is cut short leaves what it has measured.
        shares = [row | {"share_of_matmul": row["tflops"] / rate, "matmul_tflops": rate} | extra for row in rows]
        write_csv(options.out or RESULTS / f"engines-{options.size}.csv", shares)
    print(f"matmul 8192: {before:.0f} before, {after:.0f} after; shares of the mean:")
    for row in shares:
        print(f"{row['engine']:22s} {row['share_of_matmul']:.3f}")


if __name__ == "__main__":
    main()
