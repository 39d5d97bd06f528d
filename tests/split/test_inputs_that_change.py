"""An input that is changed, replaced, cut short or deleted while it is split: refused, or split as it was."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from descriptions import describe

PROJECT = Path(__file__).parents[2]
MOMENTS = {
    "before": "virnucpro.split.scan:scan",
    "after-the-scan": "virnucpro.split.dedup:deduplicate",
    "after-the-keys": "virnucpro.split.split:_plan",
    "at-the-end": "virnucpro.split.split:_publish",
}


def split(folder: Path, fault: dict[str, str] | None, name: str = "in.fasta") -> subprocess.CompletedProcess[str]:
    rng = random.Random(16)
    folder.mkdir()
    records = (f">p{i}\n{''.join(rng.choices('ACDEFGHIKLMNPQRSTVWY', k=200))}\n" for i in range(3000))
    text = "".join(records).encode()
    (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    describe().write(folder / "model.json")
    command = [sys.executable, PROJECT / "bin" / "split_fasta.py", "--model-json", "model.json", name]
    asked = {"program": "split_fasta.py", "once": str(folder / "once"), **(fault or {})}
    environment = {"PYTHONPATH": str(PROJECT / "tests" / "faults"), "VIRNUCPRO_FAULT": json.dumps(asked)}
    return subprocess.run(
        [*map(str, command), "--outdir", "split", "--shards-at-least", "3"],
        cwd=folder,
        env=os.environ | (environment if fault else {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def made(folder: Path) -> tuple[list[dict[str, Any]], bytes]:
    """The ledger, and the shards one after another."""
    shards = sorted((folder / "split" / "shards").iterdir())
    return pq.read_table(folder / "split" / "manifest.parquet").to_pylist(), b"".join(map(Path.read_bytes, shards))


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], bytes]:
    folder = tmp_path_factory.mktemp("truth") / "run"
    done = split(folder, None)
    assert done.returncode == 0, done.stderr
    return made(folder)


@pytest.mark.faults(
    "its input changed, swapped with its old time kept, cut short or deleted, before and between its passes",
    "`split_fasta.py`",
    "65 or 66, nothing left; or the split of what it was",
)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("how", ["damage", "swap", "replace", "delete"])
def test_an_input_that_changes(
    how: str, moment: str, tmp_path: Path, truth: tuple[list[dict[str, Any]], bytes]
) -> None:
    folder = tmp_path / "run"
    done = split(folder, {"target": MOMENTS[moment], "action": f"{how} in.fasta"})
    assert (folder / "once").exists(), done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode == 0 and moment == "before":
        # Nothing of it was read yet: it is split as it then is.
        ids = [row["id"] for row in made(folder)[0]]
        assert ids == [row["id"] for row in truth[0]][: len(ids)] and how != "delete"
        assert how == "replace" or len(ids) == len(truth[0])
    elif done.returncode == 0:
        assert made(folder) == truth
    else:
        assert done.returncode == (66 if how == "delete" else 65), done.stderr
        assert "in.fasta: " in done.stderr.splitlines()[-1]
        assert list((folder / "split").iterdir()) == []


@pytest.mark.parametrize("how", ["replace", "delete"])
def test_a_compressed_input_that_changes_once_it_is_read(how: str, tmp_path: Path) -> None:
    """Its records are those of what it was, and the digest in the run's record would be that of another file."""
    fault = {"target": MOMENTS["after-the-scan"], "action": f"{how} in.fasta.gz"}
    done = split(tmp_path / "run", fault, "in.fasta.gz")
    assert done.returncode == (66 if how == "delete" else 65), done.stderr
    assert "in.fasta.gz: " in done.stderr.splitlines()[-1]
