"""Finished results in the form that earlier versions gave them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro.output.digest_list import write_digests
from virnucpro.output.residue_reader import read_residues
from virnucpro.output.schema import decode_metadata, encode_metadata


def without_later_facts(results: Path) -> None:
    """Take from finished results what tells which records are beyond the trained length."""
    name = "beyond_trained_length"
    for path in (results / "manifest.parquet", *sorted((results / "embeddings").glob("part-*.parquet"))):
        table = pq.read_table(path).drop_columns(name)
        pq.write_table(table, path)
    summary = results / "metrics" / "run_summary.json"
    facts = json.loads(summary.read_text())
    del facts[name], facts["digest"]
    summary.write_text(json.dumps(facts))
    write_digests(results, {}, {})


def make_older(results: Path) -> None:
    """Give finished results their residues in the form that they had before they were bytes: lists of lists."""
    for path in sorted((results / "residues").glob("part-*.parquet")):
        store_as_lists(path)
    write_digests(results, {}, {})


def store_as_lists(path: Path) -> None:
    metadata = decode_metadata(pq.read_schema(path), path)
    dim = metadata.pop("residues")["dim"]
    rows = [(key, matrices["residues"]) for key, matrices in read_residues(path, ["residues"])]
    vectors = pa.list_(pa.field("element", pa.float16(), nullable=False), dim)
    kind = pa.list_(pa.field("element", vectors, nullable=False))
    fields = [
        pa.field("sequence_key", pa.string(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("residues", kind, nullable=False),
    ]
    columns = [
        pa.array([key for key, _ in rows], pa.string()),
        pa.array([len(states) for _, states in rows], pa.int32()),
        pa.array([[np.array(vector) for vector in states] for _, states in rows], kind),
    ]
    schema = pa.schema(fields, metadata=encode_metadata(metadata))
    # Another file: the one that was there may be a shard's too.
    path.unlink()
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), path, compression="none")
