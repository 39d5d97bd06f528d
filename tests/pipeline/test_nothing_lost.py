"""Split, embed and merge together, on the CPU: whatever is shared or taken over, each record has its own vector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merge.merge_runs import read_results, vectors
from pipeline.models import random_sequences, save_fair_esm, small_esm2

from virnucpro.config import EmbedConfig, SplitConfig
from virnucpro.merge.config import MergeConfig
from virnucpro.merge.merge import merge
from virnucpro.model.describe import describe_model
from virnucpro.pipeline.embed import embed_shard
from virnucpro.split import scan
from virnucpro.split.split import split

LIMIT = 12
POOL = random_sequences(6, 5, longest=30)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    path = save_fair_esm(small_esm2(), folder / "small.pt")
    describe_model(path).write(folder / "model.json")
    return folder


@dataclass
class Pipeline:
    """Runs the three steps in this process; the loader's processes would take seconds each time."""

    model: Path
    folder: Path

    def run(self, name: str, records: list[str], **options: Any) -> tuple[dict[str, Any], Path]:
        """Return the summary of the split and the results."""
        folder = self.folder / name
        folder.mkdir()
        fasta = folder / "input.fasta"
        fasta.write_text("".join(records))
        reuse = options.pop("reuse", ())
        config = SplitConfig(
            inputs=(fasta,),
            outdir=folder / "split",
            model_json=self.model / "model.json",
            max_length=LIMIT,
            precision="fp32",
            reuse=reuse,
            **options,
        )
        summary = split(config).to_dict()
        shards = sorted((folder / "split" / "shards").iterdir())
        for shard in shards:
            embed_shard(
                EmbedConfig(
                    shard=shard,
                    model=self.model / "small.pt",
                    model_json=self.model / "model.json",
                    outdir=folder / shard.stem,
                    max_length=LIMIT,
                    device="cpu",
                    token_budget=40,
                )
            )
        merge(
            MergeConfig(
                manifest=folder / "split" / "manifest.parquet",
                rejected=folder / "split" / "rejected.tsv",
                split_summary=folder / "split" / "split_summary.json",
                model_json=self.model / "model.json",
                shard_dirs=tuple(folder / shard.stem for shard in shards),
                outdir=folder / "results",
                reuse=reuse,
                row_group_rows=4,
            )
        )
        return summary, folder / "results"


BODIES = st.sampled_from([*POOL, *(sequence.lower() + "*" for sequence in POOL[:2]), "", "MK1", "-", "MJ*V"])
#: A split of nothing but what is rejected ends in an error.
RECORDS = st.lists(BODIES, min_size=1, max_size=14).filter(lambda bodies: not set(bodies) <= {"", "MK1", "-"})


@settings(max_examples=12)
@given(
    bodies=RECORDS,
    earlier=st.lists(RECORDS, max_size=2),
    shards=st.integers(1, 4),
    deduplicate=st.booleans(),
)
def test_vectors_are_those_of_a_plain_run(
    tmp_path_factory: pytest.TempPathFactory,
    model: Path,
    bodies: list[str],
    earlier: list[list[str]],
    shards: int,
    deduplicate: bool,
) -> None:
    def records(sequences: list[str]) -> list[str]:
        return [f">p{i} x\n{sequence}\n" for i, sequence in enumerate(sequences)]

    pipeline = Pipeline(model, tmp_path_factory.mktemp("run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "BLOCK_BYTES", 60)
        patch.setattr("virnucpro.split.workers.Workers.fork", lambda self: None)
        reuse = tuple(pipeline.run(f"earlier-{i}", records(each))[1] for i, each in enumerate(earlier))
        summary, results = pipeline.run(
            "run", records(bodies), shards_at_least=shards, deduplicate=deduplicate, reuse=reuse
        )
        plain, expected = pipeline.run("plain", records(bodies), deduplicate=False)
    assert plain["embedded"] == summary["embedded"] + summary["duplicate"] + summary["reused"]
    assert plain["embedded"] + summary["rejected"] == len(bodies)
    ledger = pq.read_table(results / "manifest.parquet").to_pylist()
    accepted = [row["ordinal"] for row in ledger if row["status"] != "rejected"]
    assert all((row["reason"] is None) == (row["status"] != "rejected") for row in ledger)
    table, plainly = read_results(results), read_results(expected)
    assert table["ordinal"].to_pylist() == plainly["ordinal"].to_pylist() == accepted
    got, wanted = vectors(table), vectors(plainly)
    assert (np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max() <= 1e-6
