"""Both readers of FASTA, with the same rows as their result."""

from __future__ import annotations

from pathlib import Path

import xxhash

from virnucpro.fasta import Record, scan_records
from virnucpro.fasta_source import FastaSource, zero_byte
from virnucpro.split.cut import cut_file, cut_stream
from virnucpro.split.parse import KEY_BYTES, ParsedBlock, parse_block

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


def rows_of_blocks(path: Path, size: int, residue_limit: int | None = None, *, in_place: bool = False) -> list[Row]:
    """Rows by the splitter's way: from a stream, or reading stretches of the file ``in_place``."""
    rows: list[Row] = []
    source = FastaSource(path)
    plain = source.plain_file() if in_place else None
    texts = cut_stream(source, size) if plain is None else (span.read() for span in cut_file(plain, size))
    line = 0
    for text in texts:
        line = line or (plain.first_line if plain else source.first_line)
        if b"\0" in text:
            raise zero_byte(source.name, line + text.count(b"\n", 0, text.find(b"\0")))
        block = parse_block(text, residue_limit)
        for i, sequence in enumerate(sequences_of(block, text)):
            reason = block.reasons.get(i)
            key = block.keys[i * KEY_BYTES : (i + 1) * KEY_BYTES]
            assert key == (bytes(KEY_BYTES) if reason else xxhash.xxh3_128_digest(sequence))
            assert (block.lengths[i] == -1) == (reason is not None)
            rows.append(
                (
                    len(rows),
                    block.ids[i].as_py(),
                    block.descriptions[i].as_py(),
                    "" if reason else sequence.decode(),
                    line + int(block.lines[i]),
                    int(block.unknown_residues[i]),
                    reason,
                )
            )
        assert block.newlines == text.count(b"\n")
        line += block.newlines
    return rows


def sequences_of(block: ParsedBlock, text: bytes) -> list[bytes]:
    """The truncated sequences of a block, from where it says that they stand."""
    stands_in = text if block.rewritten is None else block.rewritten
    bounds = zip(block.starts.tolist(), block.stops.tolist(), strict=True)
    return [stands_in[start:stop].replace(b"\n", b"") for start, stop in bounds]
