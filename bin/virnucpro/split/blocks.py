"""The scan's tasks: parse blocks of FASTA, and spool what the later passes need of them."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from virnucpro.fasta_text import Fault
from virnucpro.split.columns import numbers, texts
from virnucpro.split.contigs import Proteins, Translation, translate_block
from virnucpro.split.cut import Span
from virnucpro.split.parse import ParsedBlock, parse_block
from virnucpro.split.spool import Extent, write_all
from virnucpro.split.workers import Payload, take


@dataclass(frozen=True)
class ScannedBlock:
    """What a task reports of a block; ``rejected`` holds (position, line of the block from 0, id, reason).

    ``columns`` holds the keys and then the lengths: a file carries them for less than the pipe of the result would.
    """

    columns: Extent
    records: int
    residues: int
    unknown_residues: int
    gaps_removed: int
    comment_lines: int
    newlines: int
    rejected: list[tuple[int, int, str, str]]
    text: Extent
    places: Extent
    headers: Extent
    stopped_frames: int


def scan_blocks(
    directory: Path,
    payloads: Sequence[Payload | Span],
    residue_limit: int | None,
    gaps: str,
    translation: Translation | None = None,
) -> list[ScannedBlock | Fault]:
    """Parse blocks that follow each other, up to the first with a fault (a task of ``Workers``)."""
    scanned: list[ScannedBlock | Fault] = []
    with _Files(directory) as files:
        for payload in payloads:
            text = payload.read() if isinstance(payload, Span) else take(payload)
            proteins = None if translation is None else translate_block(text, translation)
            if isinstance(proteins, Fault):
                return [*scanned, proteins]
            block = parse_block(text if proteins is None else proteins.text, residue_limit, gaps)
            if isinstance(block, Fault):
                return [*scanned, block]
            if proteins is None:
                scanned.append(_spool_block(files, payload, text, block))
            else:
                block = replace(block, **proteins.of_contigs(block))
                scanned.append(_spool_block(files, b"", proteins.text, block, proteins))
    return scanned


class _Files:
    """The spool's files that this process alone appends to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open = ExitStack()
        self._streams: dict[str, io.FileIO] = {}

    def append(self, kind: str, data: bytes | pa.Buffer) -> Extent:
        name = f"{kind}-{os.getpid()}"
        if kind not in self._streams:
            self._streams[kind] = self._open.enter_context((self._directory / name).open("ab", buffering=0))
        stream = self._streams[kind]
        offset = stream.tell()
        write_all(stream, memoryview(data))
        return Extent(name, offset, len(data))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def _spool_block(
    files: _Files,
    payload: Payload | Span,
    text: bytes,
    block: ParsedBlock,
    proteins: Proteins | None = None,
) -> ScannedBlock:
    if isinstance(payload, Span) and block.rewritten is None:
        extent = Extent(str(payload.path.absolute()), payload.offset, payload.size)
    else:
        extent = files.append("sequences", text if block.rewritten is None else block.rewritten)
    return ScannedBlock(
        columns=files.append("columns", block.keys + block.lengths.tobytes()),
        records=len(block.ids),
        residues=int(np.maximum(block.lengths, 0).sum()),
        unknown_residues=int(block.unknown_residues.sum()),
        gaps_removed=int(block.gaps_removed.sum()),
        comment_lines=block.comment_lines,
        newlines=block.newlines,
        rejected=[(i, int(block.lines[i]), block.ids[i].as_py(), reason) for i, reason in block.reasons.items()],
        text=extent,
        places=files.append("places", np.column_stack((block.starts, block.stops)).tobytes()),
        headers=files.append("headers", _encode_headers(block, {} if proteins is None else proteins.places)),
        stopped_frames=0 if proteins is None else proteins.stopped_frames,
    )


def _encode_headers(block: ParsedBlock, places: Mapping[str, pa.Array]) -> pa.Buffer:
    rejected = block.lengths < 0
    reasons = texts([block.reasons.get(i, "") for i in range(len(rejected))]) if block.reasons else None
    batch = pa.record_batch(
        {
            "id": block.ids,
            "description": block.descriptions,
            "unknown_residues": numbers(block.unknown_residues, rejected),
            "gaps_removed": numbers(block.gaps_removed, rejected),
            "reason": pa.nulls(len(rejected), pa.string()) if reasons is None else _null_where_empty(reasons, rejected),
            **places,
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def _null_where_empty(reasons: pa.StringArray, rejected: npt.NDArray[np.bool_]) -> pa.StringArray:
    _, offsets, data = reasons.buffers()
    return pa.StringArray.from_buffers(len(reasons), offsets, data, numbers(rejected).buffers()[1])
