from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from descriptions import describe

from virnucpro.config import PRECISIONS
from virnucpro.output.contracts import SplitSummary
from virnucpro.shards import floating_point_operations, total_cost_units
from virnucpro.split import card_rates
from virnucpro.split.card_rates import SHARD_SECONDS, find_card, read_rates, shards_by_time, teraflops

BIN = Path(__file__).parents[2] / "bin"
#: What ``gpu`` tasks may take at the first try (conf/base.config).
LIMIT_SECONDS = 4 * 3600


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100 pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("NVIDIA GeForce RTX 4090", "rtx 4090"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx 6000 ada"),
        ("nvidia-l4", "l4"),
        ("nvidia-tesla-t4", "t4"),
        ("gres=gpu:a100:1", "a100"),
        ("gres=gpu:A100_80GB:1", "a100"),
        ("gpus=1", None),
        ("NVIDIA GeForce GT 430", None),
        ("", None),
        ("cpu", "cpu"),
    ],
)
def test_cards_are_found_by_whoever_names_them(name: str, card: str | None) -> None:
    assert find_card(name) == card


def test_rates_of_models_and_precisions() -> None:
    assert teraflops("h100", 1280, "fp16") == 535
    assert teraflops("h100", 480, "bf16") == 168
    assert teraflops("h100", 64, "fp16") == 168
    assert teraflops("h100", 5120, "fp16") == 578
    assert teraflops("cpu", 1280, "fp32") == teraflops("cpu", 1280, "fp16")
    assert read_rates()["precisions"].keys() == PRECISIONS.keys()
    assert teraflops(None, 1280, "fp16") < teraflops("a100", 1280, "fp16")


def operations(residues: int, layers: int = 33, width: int = 1280, length: int = 350) -> int:
    count = residues // length
    units = total_cost_units(count * (length + 2), count * (length + 2) ** 2, width)
    return floating_point_operations(units, [layers], width)


@pytest.mark.parametrize("card", [*read_rates()["cards"], None])
@pytest.mark.parametrize(("layers", "width"), [(6, 320), (33, 1280), (36, 2560)])
def test_a_shard_is_minutes_of_every_card(card: str | None, layers: int, width: int) -> None:
    residues = 4_000_000_000
    work = operations(residues, layers, width)
    shards = shards_by_time(work, residues, teraflops(card, width, "fp16"))
    seconds = work / shards / teraflops(card, width, "fp16") / 1e12
    assert seconds <= SHARD_SECONDS < LIMIT_SECONDS
    assert residues / shards <= card_rates.MOST_RESIDUES
    # On a fast card with a small model the most residues decide.
    assert seconds > 0.9 * SHARD_SECONDS or residues // shards == card_rates.MOST_RESIDUES


def test_an_unknown_card_keeps_to_its_time_where_it_is_a_slow_one() -> None:
    work = operations(4_000_000_000)
    shards = shards_by_time(work, 4_000_000_000, teraflops(None, 1280, "fp16"))
    assert work / shards / teraflops("t4", 1280, "fp16") / 1e12 < LIMIT_SECONDS


@pytest.mark.parametrize(
    ("options", "shards", "card"),
    [
        (("--card", "cpu"), 3, "cpu"),
        (("--card", "NVIDIA H100 80GB HBM3"), 1, "h100"),
        ((), 1, None),
        (("--card", "cpu", "--shard-residues", "10000"), 4, "cpu"),
    ],
)
def test_the_program_cuts_by_the_card_unless_told(
    options: tuple[str, ...], shards: int, card: str | None, tmp_path: Path, write_fasta: Any, proteins: Any
) -> None:
    """15B: a CPU is taken to need 20 minutes for some 13,500 of the 38,000 residues."""
    fasta = write_fasta([(f"p{i}", sequence) for i, sequence in enumerate(proteins([1000] * 38))])
    describe(layers=48, embed_dim=5120).write(tmp_path / "model.json")
    command = [sys.executable, BIN / "split_fasta.py", "--model-json", tmp_path / "model.json"]
    subprocess.run([*command, "--outdir", tmp_path / "split", *options, fasta], check=True)
    summary = SplitSummary.read(tmp_path / "split" / "split_summary.json")
    assert (len(summary.shards), summary.card) == (shards, card)
    assert summary.card_teraflops == pytest.approx(teraflops(card, 5120, "fp16"))
