"""Protein sequences streamed from FASTA files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from torch.utils.data import IterableDataset, get_worker_info

from virnucpro.config import GAPS
from virnucpro.data.cuda_isolation import require_cuda_hidden
from virnucpro.errors import UsageError
from virnucpro.fasta import read_records


class SequenceDataset(IterableDataset[dict[str, str]]):
    """Streams ``{'id', 'sequence', 'file'}``, file after file, in the order of the files.

    In a DataLoader of several workers, each worker yields its own share (every n-th sequence), so that none comes
    twice. Records are read by the rules of :mod:`virnucpro.fasta`; equal and empty ids are legal and all of them are
    yielded.

    Args:
        fasta_files: FASTA files, plain or compressed as :func:`virnucpro.fasta.read_records` takes them.
        max_length: residues after which a sequence is cut; None keeps it whole. The default stands in the interface
            that this class implements; the pipeline cuts earlier, when it splits the input.
        gaps: what becomes of the gap characters ``-`` and inner ``.``: ``remove``, ``unknown`` (X) or ``reject``.

    Raises:
        UsageError: no file is given, or standard input, which only one process could read.
        ValueError: ``max_length`` is below 1, or ``gaps`` none of the three.
    """

    def __init__(
        self, fasta_files: Iterable[str | os.PathLike[str]], max_length: int | None = 1024, *, gaps: str = "remove"
    ) -> None:
        super().__init__()
        if isinstance(fasta_files, str | os.PathLike):
            fasta_files = [fasta_files]
        self.fasta_files = tuple(Path(file) for file in fasta_files)
        self.max_length = max_length
        self.gaps = gaps
        if not self.fasta_files:
            raise UsageError("no FASTA file given; name at least one")
        if Path("-") in self.fasta_files:
            raise UsageError("standard input cannot be read by several workers; write it to a file first")
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length is {max_length}, but must be at least 1")
        if gaps not in GAPS:
            raise ValueError(f"gaps is {gaps!r}, but must be one of {', '.join(GAPS)}")

    def __iter__(self) -> Iterator[dict[str, str]]:
        """Yield this process's share of the sequences: all of them outside of a worker.

        Raises:
            RuntimeError: this is a worker and CUDA is visible or initialised in it.
            VirnucproError: a file is missing or is not FASTA; see :func:`virnucpro.fasta.read_records`.
        """
        worker = get_worker_info()
        if worker is None:
            return self.unsharded()
        require_cuda_hidden()
        return islice(self.unsharded(), worker.id, None, worker.num_workers)

    def unsharded(self) -> Iterator[dict[str, str]]:
        """Yield all sequences, in a worker too: for a reader that shares out the work itself."""
        for path in self.fasta_files:
            file = str(path)
            for record in read_records(path, gaps=self.gaps):
                yield {"id": record.id, "sequence": record.sequence[: self.max_length], "file": file}
