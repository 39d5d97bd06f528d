"""A GPU whose memory another process holds: the real lack of memory, through the command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pipeline.models import save_fair_esm, small_esm2

from virnucpro.errors import ExitCode

_HOG = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - int(sys.argv[1]), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""
#: A context and the model fit into the first and no large batch; into the second not even the context does.
ROOM_FOR_A_FEW, ROOM_FOR_NOTHING = 1_600 << 20, 100 << 20
COMMAND = [sys.executable, "-m", "virnucpro"]


@contextmanager
def crowded(left: int) -> Iterator[None]:
    """Another process holds the card but for ``left`` bytes."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOG, str(left)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as hog:
        assert hog.stdout is not None
        assert hog.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            hog.kill()


@pytest.fixture(scope="module")
def proteins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proteins")
    save_fair_esm(small_esm2(layers=6, dim=320, heads=20), folder / "model.pt")
    letters = np.random.default_rng(3).choice(list("ACDEFGHIKLMNPQRSTVWY"), (300, 1000))
    (folder / "in.fasta").write_text("".join(f">p{n}\n{''.join(row)}\n" for n, row in enumerate(letters)))
    return folder


def embed(proteins: Path, outdir: Path) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "embed", proteins / "in.fasta", "-o", outdir, "--model", proteins / "model.pt", "--no-report"]
    return subprocess.run([*command, "--token-budget", "262144"], capture_output=True, text=True, check=False)


def vectors(results: Path) -> np.ndarray:
    table = pq.read_table(results / "embeddings", columns=["id", "embedding"]).sort_by("id")
    return np.stack(table["embedding"].to_numpy())


@pytest.mark.gpu
@pytest.mark.faults(
    "a card that another process fills in part", "a shard on a GPU", "smaller batches, the same vectors"
)
def test_a_crowded_card_gives_the_same_vectors_in_smaller_batches(proteins: Path, tmp_path: Path) -> None:
    alone = embed(proteins, tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    with crowded(ROOM_FOR_A_FEW):
        found = embed(proteins, tmp_path / "crowded")
    assert found.returncode == 0, found.stderr
    retries = {
        name: pq.read_table(tmp_path / name / "metrics" / "batches.parquet")["retries"] for name in ("alone", "crowded")
    }
    assert sum(retries["alone"].to_pylist()) == 0
    assert sum(retries["crowded"].to_pylist()) > 0
    one, other = vectors(tmp_path / "alone"), vectors(tmp_path / "crowded")
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert len(one) == 300 and cosines.min() > 0.99999
    assert subprocess.run([*COMMAND, "verify", tmp_path / "crowded"], check=False).returncode == 0


@pytest.mark.gpu
@pytest.mark.faults("a card that another process fills", "a shard on a GPU", "75, and no results")
def test_a_full_card_ends_with_what_can_be_tried_again(proteins: Path, tmp_path: Path) -> None:
    with crowded(ROOM_FOR_NOTHING):
        found = embed(proteins, tmp_path / "full")
    assert found.returncode == ExitCode.TRY_AGAIN, found.stderr
    assert "Traceback" not in found.stderr and "memory" in found.stderr
    assert not (tmp_path / "full" / "embeddings").exists()
