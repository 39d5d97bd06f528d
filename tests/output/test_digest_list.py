"""The list of digests: only names that results have are read off it."""

from __future__ import annotations

from pathlib import Path

import pytest

from virnucpro.errors import DataError
from virnucpro.output.digest_list import reused_parts

DIGEST = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    "name", ["embeddings/part-00000/t", "embeddings/../part-00000", "../manifest.parquet", "/etc/passwd", ".", "a//b"]
)
def test_a_name_that_no_results_have_is_damage(name: str, tmp_path: Path) -> None:
    (tmp_path / "digests.xxh128").write_text(f"{DIGEST}  {name}\n")
    with pytest.raises(DataError, match=r"digests\.xxh128: damaged, not a list of digests and names; run again"):
        reused_parts(tmp_path)


def test_parts_come_with_their_digests_in_the_order_of_their_rows(tmp_path: Path) -> None:
    names = ("embeddings/part-00000.parquet", "embeddings/part-00001.parquet", "manifest.parquet")
    (tmp_path / "digests.xxh128").write_text("".join(f"{DIGEST}  {name}\n" for name in names))
    assert list(reused_parts(tmp_path).items()) == [(tmp_path / name, DIGEST) for name in names[:2]]
