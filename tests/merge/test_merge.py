from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merge.merge_runs import Run, key, length, metadata, read_results, residues, vector, vectors

from virnucpro.cli.merge import main as merge_main
from virnucpro.errors import LedgerError
from virnucpro.merge import merge as merge_module
from virnucpro.merge.merge import merge
from virnucpro.output.contracts import SplitSummary
from virnucpro.output.digest_list import write_digests
from virnucpro.output.schema import read_metadata


def _check(run: Run, **options: object) -> pa.Table:
    merge(run.config(**options))
    table = read_results(run.folder / "results")
    kept = run.kept()
    ordinals = [i for i, s in enumerate(run.sequences) if s is not None]
    assert table["ordinal"].to_pylist() == ordinals
    assert table["id"].to_pylist() == [f"p{i}" for i in ordinals]
    assert table["sequence_key"].to_pylist() == [key(s) for s in kept]
    assert table["length"].to_pylist() == [length(s) for s in kept]
    for name, dim in run.columns.items():
        expected = np.array([vector(s, dim, name) for s in kept], np.float32).reshape(len(kept), dim)
        np.testing.assert_array_equal(vectors(table, name), expected.astype(run.dtype))
    return table


def _random_records(count: int, distinct: int, rejected: float, seed: int) -> list[int | None]:
    """Records that repeat themselves a lot, in any order: lists drawn by hypothesis are mostly short."""
    generator = np.random.default_rng(seed)
    numbers = generator.integers(0, distinct, count).tolist()
    return [None if generator.random() < rejected else number for number in numbers]


sequence_numbers = st.builds(
    _random_records, st.integers(0, 80), st.integers(1, 40), st.sampled_from([0.0, 0.2, 1.0]), st.integers(0, 999)
)


@settings(max_examples=40)
@given(
    sequences=sequence_numbers,
    earlier=st.lists(st.lists(st.integers(0, 40), max_size=20), max_size=2),
    shards=st.integers(1, 5),
    group=st.integers(1, 7),
    window=st.integers(1, 3),
    part=st.integers(1, 400),
    spill=st.booleans(),
    dtype=st.sampled_from(["float32", "float16"]),
    two=st.booleans(),
)
def test_every_record_gets_its_vector_in_input_order(
    tmp_path_factory: pytest.TempPathFactory,
    sequences: list[int | None],
    earlier: list[list[int]],
    shards: int,
    group: int,
    window: int,
    part: int,
    spill: bool,
    dtype: str,
    two: bool,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    columns = {"embedding_mean_layer6": 3, "embedding_max_layer6": 3} if two else {"embedding": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge_module, "WINDOW_ROWS", window * group)
        if spill:
            patch.setattr(merge_module, "WANTED_BYTES", 64)
            patch.setattr(merge_module, "REQUEST_BYTES", 24)
            patch.setattr("virnucpro.merge.layout.REUSE_BLOCK_ROWS", 4)
        before = []
        for number, rows in enumerate(earlier):
            past = Run(folder / f"earlier{number}", rows, shards=2, dtype=dtype, columns=columns)
            _check(past, row_group_rows=group, part_bytes=part)
            before.append((past.folder / "results", rows))
        run = Run(folder / "now", sequences, shards=shards, dtype=dtype, columns=columns, earlier=before)
        table = _check(run, row_group_rows=group, part_bytes=part)
    statuses = [status for status in run.statuses() if status != "rejected"]
    energy = np.array(table["energy_joules"].to_pylist(), np.float64)
    for status, shard, joules in zip(statuses, table["shard"].to_pylist(), energy, strict=True):
        assert (shard is None) == (status == "reused")
        assert (joules > 0) == (status == "embedded")
    summary = json.loads((run.folder / "results" / "metrics" / "run_summary.json").read_text())
    if run.unique:
        assert energy.sum() == pytest.approx(summary["energy_joules"], rel=1e-9)
    assert [path.name for path in run.folder.glob(".*")] == []


def test_rows_carry_the_metrics_of_their_shard_and_batch(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, 1, 2, 3, 4, 5, 1, 4], shards=2)
    table = _check(run)
    assert table["shard"].to_pylist() == [0, 0, 0, 1, 1, 1, 0, 1]
    assert table["device_name"].to_pylist() == [f"H100-{shard}" for shard in table["shard"].to_pylist()]
    assert table["device_utilization"].to_pylist() == [80.0 + shard for shard in table["shard"].to_pylist()]
    rates = {row["shard"]: row["tokens_per_second"] for row in _metrics(run, "batches").to_pylist()}
    assert table["batch_tokens_per_second"].to_pylist() == [rates[shard] for shard in table["shard"].to_pylist()]
    assert table["energy_joules"].to_pylist()[6:] == [0.0, 0.0]


def _metrics(run: Run, name: str) -> pa.Table:
    return pq.read_table(run.folder / "results" / "metrics" / f"{name}.parquet")


def test_unknown_energy_is_null_but_duplicates_cost_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, 1, 0], power=None)
    assert _check(run)["energy_joules"].to_pylist() == [None, None, 0.0]


def test_the_results_folder_is_whole(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, None, 1, 0], shards=2)
    summary = merge(run.config()).to_dict()
    results = tmp_path / "results"
    assert sorted(str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()) == [
        "digests.xxh128",
        "embeddings/part-00000.parquet",
        "manifest.parquet",
        "metrics/batches.parquet",
        "metrics/gpu_metrics.parquet",
        "metrics/run_summary.json",
        "metrics/shards.parquet",
        "rejected.tsv",
        "ro-crate-metadata.json",
    ]
    assert (results / "manifest.parquet").read_bytes() == (tmp_path / "manifest.parquet").read_bytes()
    written = json.loads((results / "metrics" / "run_summary.json").read_text())
    assert len(written.pop("digest")) == 32 and written == summary
    assert [summary[key] for key in ("records", "embedded", "duplicate", "reused", "rejected")] == [4, 2, 1, 0, 1]
    assert summary["rows"] == 3
    assert _metrics(run, "shards")["shard"].to_pylist() == [0, 1]
    assert {d["name"] for d in summary["devices"]} == {"H100-0", "H100-1"}
    assert summary["energy_kwh"] == pytest.approx(summary["energy_joules"] / 3.6e6)
    assert summary["attention"] == ["twin"]


@pytest.mark.parametrize(("layers", "computed"), [([6], 6), ([1], 1), ([2, 0], 2), ([0], 0)])
def test_flops_follow_the_formula_up_to_the_highest_layer(tmp_path: Path, layers: list[int], computed: int) -> None:
    run = Run(tmp_path, [0, 1, 1])
    described = SplitSummary.read(tmp_path / "split_summary.json")
    replace(described, output=replace(described.output, layers=layers)).write(tmp_path / "split_summary.json")
    run.rewrite_shard(0, facts=metadata(layers=layers))
    summary = merge(run.config()).to_dict()
    n = [7, 14]
    flops = sum(24 * computed * 9 * m + 4 * computed * 3 * m * m for m in n)
    seconds = summary["tokens"] / summary["tokens_per_second"]
    assert summary["tokens"] == sum(n)
    assert summary["teraflops_per_second"] == pytest.approx(flops / seconds / 1e12)


def test_metadata_lists_every_device(tmp_path: Path) -> None:
    run = Run(tmp_path, [0, 1], shards=2)
    run.rewrite_shard(1, facts=metadata(device_name="A100", attention="other"))
    merge(run.config())
    merged = read_metadata(tmp_path / "results" / "embeddings" / "part-00000.parquet")
    assert merged["device_name"] == "A100, H100"
    assert merged["attention"] == "other, twin"
    assert merged["weights_sha256"] == "ab" * 32
    assert merged["layers"] == [6]


@pytest.mark.parametrize(
    ("found", "figures"),
    [((2e-6, 0.99999995), (2e-6, 0.9999999)), ((1e-7, 0.99999991), (1e-6, 0.9999999)), ((None, None), (None, None))],
    ids=["the second is worse", "the first is worse", "one was not checked"],
)
def test_metadata_have_the_worst_of_the_self_checks(
    tmp_path: Path, found: tuple[float | None, float | None], figures: tuple[float | None, float | None]
) -> None:
    run = Run(tmp_path, [0, 1], shards=2)
    run.rewrite_shard(1, facts=metadata(greatest_residue_l2=found[0], least_pooled_cosine=found[1]))
    merge(run.config())
    merged = read_metadata(tmp_path / "results" / "embeddings" / "part-00000.parquet")
    assert (merged["greatest_residue_l2"], merged["least_pooled_cosine"]) == figures


def test_parts_hold_about_what_was_asked_for(tmp_path: Path) -> None:
    run = Run(tmp_path, list(range(50)), shards=3)
    _check(run, row_group_rows=4, part_bytes=12 * 12)
    parts = sorted((tmp_path / "results" / "embeddings").iterdir())
    assert [pq.read_metadata(part).num_rows for part in parts] == [12, 12, 12, 12, 2]
    assert pq.read_metadata(parts[0]).num_row_groups == 3


def test_everything_rejected_still_gives_a_readable_result(tmp_path: Path) -> None:
    run = Run(tmp_path, [None, None])
    assert _check(run).num_rows == 0


def _check_residues(results: Path, sequences: set[int]) -> None:
    table = pq.read_table(results / "residues")
    assert sorted(table["sequence_key"].to_pylist()) == sorted(key(s) for s in sequences)
    rows = {row["sequence_key"]: row for row in table.to_pylist()}
    for sequence in sequences:
        row, expected = rows[key(sequence)], residues(sequence).astype(np.float16)
        assert (row["length"], row["dim"]) == expected.shape
        assert row["residues"] == expected.tobytes()


def test_residues_are_joined_by_key(tmp_path: Path) -> None:
    run = Run(tmp_path, [3, 4, 3, 5, 6], shards=2, residues=True)
    merge(run.config())
    _check_residues(tmp_path / "results", {3, 4, 5, 6})


def test_residues_of_reused_sequences_are_taken_over(tmp_path: Path) -> None:
    first = Run(tmp_path / "first", [3, 4, 3, 5], shards=2, residues=True)
    second = Run(tmp_path / "second", [8, 5], residues=True)
    for run in (first, second):
        merge(run.config(part_bytes=1))
    earlier = [(run.config().outdir, run.kept()) for run in (first, second)]
    mixed = Run(tmp_path / "mixed", [7, 3, 8, 7, 3, None, 5], earlier=earlier, residues=True)
    merge(mixed.config())
    _check_residues(mixed.config().outdir, {7, 3, 8, 5})
    whole = Run(tmp_path / "whole", [8, 3, 8], earlier=earlier, residues=True)
    merge(whole.config())
    _check_residues(whole.config().outdir, {8, 3})
    (first.config().outdir / "residues" / "part-00000.parquet").unlink()
    write_digests(first.config().outdir, {}, {})
    again = Run(tmp_path / "again", [7, 3, 4], earlier=earlier, residues=True)
    with pytest.raises(LedgerError, match=r"first/results: no residues of 1 sequences that are reused"):
        merge(again.config())


def test_residues_have_the_columns_of_results_that_are_used(tmp_path: Path) -> None:
    """Earlier results that the split refused stay in ``--reuse``, in their place."""
    first = Run(tmp_path / "first", [3, 5], residues=True)
    refused = Run(tmp_path / "refused", [3, 5], residues=True)
    for run in (first, refused):
        merge(run.config())
    part = refused.config().outdir / "residues" / "part-00000.parquet"
    table = pq.read_table(part)
    other = [name.replace("residues", "residues_layer1") for name in table.column_names]
    pq.write_table(table.rename_columns(other), part)
    earlier = [(refused.config().outdir, []), (first.config().outdir, first.kept())]
    whole = Run(tmp_path / "whole", [5, 3, 5], earlier=earlier, residues=True)
    merge(whole.config())
    _check_residues(whole.config().outdir, {3, 5})


def test_shards_and_earlier_results_come_from_a_folder_and_a_list(tmp_path: Path) -> None:
    first = Run(tmp_path / "first", [0, 1, 2])
    merge(first.config())
    run = Run(tmp_path / "run", [2, 3, None, 4, 0], shards=2, earlier=[(first.folder / "results", [0, 1, 2])])
    entry = {"path": str(first.folder / "results"), "name": "earlier"}
    (tmp_path / "list").write_text(json.dumps([entry]))
    files = {"manifest": "manifest.parquet", "split-summary": "split_summary.json", "model-json": "model.json"}
    files["rejected"] = "rejected.tsv"
    options = [f"--{name}={run.folder / file}" for name, file in files.items()]
    options += [f"--outdir={tmp_path / 'results'}", f"--shards-in={run.folder}", f"--reuse-from={tmp_path / 'list'}"]
    assert merge_main(options) == 0
    assert read_results(tmp_path / "results")["sequence_key"].to_pylist() == [key(s) for s in run.kept()]
