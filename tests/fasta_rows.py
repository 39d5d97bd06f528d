"""Both readers of FASTA, with the same rows as their result."""

from __future__ import annotations

from pathlib import Path

import xxhash

from virnucpro.fasta import Record, scan_records
from virnucpro.fasta_source import FastaSource
from virnucpro.fasta_text import Fault
from virnucpro.split.cut import cut_file, cut_stream
from virnucpro.split.parse import KEY_BYTES, ParsedBlock, parse_block

#: Ordinal, id, description, sequence, line, unknown residues, gaps removed, reason.
Row = tuple[int, str, str, str, int, int, int, str | None]


def rows_of_scan(path: Path, block_bytes: int = 1 << 18, gaps: str = "remove") -> list[Row]:
    rows: list[Row] = []
    for item in scan_records(path, block_bytes=block_bytes, gaps=gaps):
        facts = (item.ordinal, item.id, item.description)
        if isinstance(item, Record):
            rows.append((*facts, item.sequence, item.line, item.unknown_residues, item.gaps_removed, None))
        else:
            rows.append((*facts, "", item.line, 0, 0, item.reason))
    return rows


def rows_of_blocks(
    path: Path, size: int, residue_limit: int | None = None, *, in_place: bool = False, gaps: str = "remove"
) -> list[Row]:
    """Rows by the splitter's way: from a stream, or reading stretches of the file ``in_place``."""
    return read_blocks(path, size, residue_limit, in_place=in_place, gaps=gaps)[0]


def read_blocks(
    path: Path, size: int, residue_limit: int | None = None, *, in_place: bool = False, gaps: str = "remove"
) -> tuple[list[Row], int]:
    """Rows as ``rows_of_blocks``, and the comment lines of the file."""
    rows: list[Row] = []
    source = FastaSource(path)
    plain = source.plain_file() if in_place else None
    texts = cut_stream(source, size) if plain is None else (span.read() for span in cut_file(plain, size))
    line = comments = 0
    for text in texts:
        line = line or (plain.first_line if plain else source.first_line)
        block = parse_block(text, residue_limit, gaps)
        if isinstance(block, Fault):
            raise block.error(source.name, line)
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
                    int(block.gaps_removed[i]),
                    reason,
                )
            )
        assert block.newlines == text.count(b"\n")
        line += block.newlines
        comments += block.comment_lines
    return rows, comments + (plain or source).comment_lines


def sequences_of(block: ParsedBlock, text: bytes) -> list[bytes]:
    """The truncated sequences of a block, from where it says that they stand."""
    stands_in = text if block.rewritten is None else block.rewritten
    bounds = zip(block.starts.tolist(), block.stops.tolist(), strict=True)
    return [stands_in[start:stop].replace(b"\n", b"") for start, stop in bounds]
