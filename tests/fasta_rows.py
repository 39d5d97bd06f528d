"""Both readers of FASTA, with the same rows as their result."""

from __future__ import annotations

from pathlib import Path

import xxhash

from virnucpro.fasta import Record, scan_records
from virnucpro.fasta_blocks import KEY_BYTES, cut_blocks, parse_block
from virnucpro.fasta_source import FastaSource

Row = tuple[int, str, str, str, int, int, str | None]


def rows_of_scan(path: Path, block_bytes: int = 1 << 18) -> list[Row]:
    rows: list[Row] = []
    for item in scan_records(path, block_bytes=block_bytes):
        if isinstance(item, Record):
            rows.append(
                (item.ordinal, item.id, item.description, item.sequence, item.line, item.unknown_residues, None)
            )
        else:
            rows.append((item.ordinal, item.id, item.description, "", item.line, 0, item.reason))
    return rows


def rows_of_blocks(path: Path, size: int, residue_limit: int | None = None) -> list[Row]:
    rows: list[Row] = []
    for text, line in cut_blocks(FastaSource(path), size):
        block = parse_block(text, line, residue_limit)
        for i, sequence in enumerate(block.sequences):
            reason = block.reasons.get(i)
            key = block.keys[i * KEY_BYTES : (i + 1) * KEY_BYTES]
            assert key == (bytes(KEY_BYTES) if reason else xxhash.xxh3_128_digest(sequence))
            assert (block.lengths[i] == -1) == (reason is not None)
            rows.append(
                (
                    len(rows),
                    block.ids[i],
                    block.descriptions[i],
                    sequence.decode(),
                    int(block.lines[i]),
                    int(block.unknown_residues[i]),
                    reason,
                )
            )
    return rows
