"""Headers as long as those that databases of merged entries have: memory holds few of them at once."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from split.split_program import split

from virnucpro.output.ledger import LEDGER_ROW_GROUP_BYTES

DESCRIPTION = "d" * 100_000
RECORDS = 5 * LEDGER_ROW_GROUP_BYTES // (2 * len(DESCRIPTION))


def test_the_ledger_is_written_in_bounded_pieces_however_long_the_descriptions_are(tmp_path: Path) -> None:
    with (tmp_path / "in.fasta").open("w") as fasta:
        fasta.writelines(f">p{i} {DESCRIPTION}\nMKV\n" for i in range(RECORDS))
    split(tmp_path, tmp_path / "in.fasta")
    with pq.ParquetFile(tmp_path / "split" / "manifest.parquet") as ledger:
        groups = [ledger.read_row_group(group, ["id", "description"]) for group in range(ledger.num_row_groups)]
    assert [row for group in groups for row in group["id"].to_pylist()] == [f"p{i}" for i in range(RECORDS)]
    assert all(set(group["description"].to_pylist()) == {DESCRIPTION} for group in groups)
    assert max(group.nbytes for group in groups) < 2 * LEDGER_ROW_GROUP_BYTES
