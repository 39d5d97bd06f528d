"""What a split tells of its work: the cost of each shard, and what it calls the sequences."""

from __future__ import annotations

from pathlib import Path

import pytest
from split.test_split import FIXTURES, LAYERS, check, make_config, operations, read_shards

from virnucpro.split.split import split


@pytest.mark.parametrize(("layers", "computed"), [((1,), 1), ((-3, 0), LAYERS - 2), ((0,), 0), ((-1,), LAYERS)])
def test_a_shard_costs_what_is_computed_of_it(tmp_path: Path, layers: tuple[int, ...], computed: int) -> None:
    config = make_config(tmp_path, FIXTURES / "plain.fasta", layers=layers)
    summary = split(config).to_dict()
    check(config, summary)
    lengths = [len(residues) for _, residues in read_shards(config.outdir)[0]]
    assert summary["shards"][0]["cost"] == sum(operations(n + 2, computed) for n in lengths)


def test_sequences_that_were_not_compared_are_not_called_distinct(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta = tmp_path / "twice.fasta"
    fasta.write_text(">a\nMKV\n>b\nMKV\n")
    split(make_config(tmp_path / "each", fasta, deduplicate=False))
    assert "2 sequences to embed in 1 shards" in capsys.readouterr().out
    split(make_config(tmp_path / "once", fasta))
    assert "1 distinct sequences to embed in 1 shards" in capsys.readouterr().out
