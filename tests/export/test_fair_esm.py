"""One .pt for each protein, as fair-esm's extract script names and fills it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from finished_results import KEPT, LIMIT, MODEL, PROJECT, Embedded, identical, program

torch = pytest.importorskip("torch")

#: What the records are called as files.
NAMES = [
    *("sp|P12345|A_HUMAN Protein one OS=Homo sapiens", "a_b", "a_b second", "a_b third", "record_5", ". dot"),
    *("sp|P12345|B_MOUSE", "größe_ß", "x" * 230, "a_b second_10"),
]


def export(results: Path, folder: Path, *options: str) -> Path:
    program("export.py", "--results", results, "--to", "fair-esm", "--outdir", folder, *options)
    return folder


def test_names_and_content(results: Path, tmp_path: Path) -> None:
    folder, embedded = export(results, tmp_path / "out", "--per-residue"), Embedded.read(results)
    assert sorted(path.name for path in folder.glob("*.pt")) == sorted(f"{name}.pt" for name in NAMES)
    for row, name in enumerate(NAMES):
        content = torch.load(folder / f"{name}.pt", weights_only=True)
        assert list(content) == ["label", "representations", "mean_representations"]
        assert content["label"] == KEPT[row][0]
        assert identical(content["mean_representations"][6].numpy(), embedded.vectors()[row])
        assert identical(content["representations"][6].numpy(), embedded.residues(row).astype(np.float32))
    listed = [line.split("\t") for line in (folder / "renamed.tsv").read_text().splitlines()]
    assert [row[0] for row in listed] == ["ordinal", "1", "4", "5", "8", "9", "10"]


def test_every_layer_and_pooling(several: Path, tmp_path: Path) -> None:
    folder, embedded = export(several, tmp_path / "out"), Embedded.read(several)
    content = torch.load(folder / "sp|P12345|B_MOUSE.pt", weights_only=True)
    assert list(content) == ["label", "mean_representations", "bos_representations"]
    for pooling in ("mean", "bos"):
        assert list(content[f"{pooling}_representations"]) == [0, 6]
        for layer, vector in content[f"{pooling}_representations"].items():
            assert identical(
                vector.numpy(), embedded.vectors(f"embedding_{pooling}_layer{layer}")[6].astype(np.float32)
            )
    size = (folder / "sp|P12345|B_MOUSE.pt").stat().st_size
    assert size < 4 * 320 * 4 + 4096, "a vector was saved with all that it is a part of"


def test_it_is_what_the_extract_script_leaves(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("esm")
    ours = export(results, tmp_path / "ours", "--per-residue")
    fasta = tmp_path / "two.fasta"
    chosen = [0, 6]
    fasta.write_text("".join(f">{KEPT[row][0]}\n{KEPT[row][1]}\n" for row in chosen))
    script = [sys.executable, "-m", "benchmarks.peers.fair_esm_extract", MODEL, fasta, tmp_path / "theirs"]
    options = ["--threads", "1", "--truncation", str(LIMIT)]
    subprocess.run([*map(str, script), *options], cwd=PROJECT, check=True, timeout=300)
    theirs = sorted((tmp_path / "theirs").glob("*.pt"))
    assert len(theirs) == len(chosen)
    for path in theirs:
        expected = torch.load(path, weights_only=True)
        found = torch.load(ours / path.name, weights_only=True)
        assert found["label"] == expected["label"]
        assert found.keys() >= expected.keys()
        (layer,) = expected["mean_representations"]
        pairs = found["mean_representations"][layer], expected["mean_representations"][layer]
        np.testing.assert_allclose(*(each.numpy() for each in pairs), rtol=1e-3, atol=1e-4)
